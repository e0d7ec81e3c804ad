"""Tell twistd that there is a ``derper``. Nothing else: every twistd loads this file."""

from twisted.application.service import ServiceMaker

derper = ServiceMaker("derper", "derp.tap", "A DERP relay for Tailscale networks.", "derper")
