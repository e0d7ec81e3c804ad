"""Takes a Prometheus text apart without judging it, so that two can be compared."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_SAMPLE = re.compile(r"([a-zA-Z0-9_:]+)(?:\{(.*)\})? (\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


@dataclass
class Exposition:
    """What one text says, in its order."""

    types: dict[str, str] = field(default_factory=dict)
    described: list[str] = field(default_factory=list)
    """Metrics with a HELP line."""
    samples: dict[tuple[str, tuple[tuple[str, str], ...]], float] = field(default_factory=dict)
    comments: list[str] = field(default_factory=list)

    @classmethod
    def parse(cls, text: str) -> Exposition:
        """Read a text; a line that is none of the format's is an error."""
        parsed = cls()
        for line in text.removesuffix("\n").split("\n"):
            words = line.split(" ")
            if line.startswith("# TYPE "):
                parsed.types[words[2]] = words[3]
            elif line.startswith("# HELP "):
                parsed.described.append(words[2])
            elif line.startswith("#"):
                parsed.comments.append(line)
            else:
                sample = _SAMPLE.fullmatch(line)
                if sample is None:
                    raise ValueError(f"not a line of Prometheus text: {line!r}")
                name, labels, value = sample.groups()
                parsed.samples[name, tuple(_LABEL.findall(labels or ""))] = float(value)
        return parsed

    def value(self, name: str, /, **labels: str) -> float:
        """One sample's value."""
        return self.samples[name, tuple(labels.items())]

    def without(self, *prefixes: str) -> Exposition:
        """The same, but for metrics whose names begin so."""

        def keep(name: str) -> bool:
            return not name.startswith(prefixes)

        return Exposition(
            {name: kind for name, kind in self.types.items() if keep(name)},
            [name for name in self.described if keep(name)],
            {key: value for key, value in self.samples.items() if keep(key[0])},
            self.comments,
        )

    def non_zero(self, prefix: str) -> dict[str, str]:
        """The samples that say something, as the records write them."""
        found = {}
        for (name, labels), value in self.samples.items():
            if name.startswith(prefix) and value:
                text = ",".join(f'{label}="{of}"' for label, of in labels)
                found[name + (f"{{{text}}}" if text else "")] = f"{value:g}"
        return found
