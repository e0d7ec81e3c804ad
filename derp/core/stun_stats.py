"""What the STUN server counts; beside :mod:`derp.core.stats`, as STUN may run without DERP."""

from __future__ import annotations


class STUNStats:
    """
    Plain integers since the start, all of them exported from the beginning.

    ``success``, ``write_error``, ``not_stun`` and ``read_error`` are derper's
    ``stun_requests`` by disposition, ``ipv4`` and ``ipv6`` its ``stun_addrfamily``.
    """

    __slots__ = (
        "not_stun",
        "read_error",
        "success",
        "write_error",
        "ipv4",
        "ipv6",
        "withheld",
        "generic_success",
        "generic_unknown_attributes",
        "generic_rate_limited",
        "generic_too_short",
        "generic_write_error",
    )

    def __init__(self) -> None:
        self.not_stun = 0
        """Datagrams that are not STUN, or not a request a relay answers."""
        self.read_error = 0
        self.success = 0
        """Responses the kernel took."""
        self.write_error = 0
        """Responses the kernel refused; they are not tried again."""
        self.ipv4 = 0
        """Accepted requests, sent or not, of IPv4 peers, IPv4-mapped ones included."""
        self.ipv6 = 0
        self.withheld = 0
        """Datagrams thrown away unread while the server was told not to answer."""
        self.generic_success = 0
        """Requests of other software that were answered (``--stun-generic``); these and the
        next four are none of the above."""
        self.generic_unknown_attributes = 0
        """Those answered by error 420."""
        self.generic_rate_limited = 0
        """Those not answered because their source, or all together, had too many answers."""
        self.generic_too_short = 0
        """Those whose answer would be more than 1.6 times as long."""
        self.generic_write_error = 0
        """Answers that the kernel refused, also counted as what they were."""
