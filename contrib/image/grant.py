"""
Give a program CAP_NET_BIND_SERVICE, as ``setcap cap_net_bind_service=+ep`` does.

Here because the image has no setcap, and installing it for one call would add a layer. The value
of the attribute is ``struct vfs_cap_data``, revision 2, of linux/capability.h: flags, then the
low and the high half of the permitted and the inheritable set.
"""

import os
import struct
import sys

REVISION_2 = 0x02000000
EFFECTIVE = 0x00000001
NET_BIND_SERVICE = 1 << 10

os.setxattr(
    sys.argv[1],
    "security.capability",
    struct.pack("<5I", REVISION_2 | EFFECTIVE, NET_BIND_SERVICE, 0, 0, 0),
)
