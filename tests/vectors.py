"""Where the tests find the bytes recorded from the reference server (``tests/data``)."""

import json
from pathlib import Path
from typing import Any

DATA = Path(__file__).parent / "data"


def load(name: str) -> Any:
    """
    Read one recorded file.

    :param name: path below ``tests/data``, for instance ``"keys.json"``.
    """
    text = (DATA / name).read_text(encoding="utf-8")
    return json.loads(text) if name.endswith(".json") else text


def transcripts() -> dict[str, Any]:
    """Every recorded session by scenario name."""
    return {path.stem: json.loads(path.read_text()) for path in DATA.glob("transcripts/*.json")}
