"""Tell twistd that there is a ``derpprobe``. Nothing else: every twistd loads this file."""

from twisted.application.service import ServiceMaker

derpprobe = ServiceMaker(
    "derpprobe", "derp.probe_tap", "Watches DERP relays from outside.", "derpprobe"
)
