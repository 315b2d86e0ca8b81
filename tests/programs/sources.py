# Prints where the digits come from that each root leads to: sources.py SETTINGS ROOT ...
# With "restricted" it may write only where everybody may, and only small files.
import encodings.hex_codec
import encodings.idna  # noqa: F401, both may be out of reach for nobody
import json
import os
import sys

from torchvision import datasets

import utils

settings = json.loads(sys.argv[1])
datasets.MNIST.mirrors = settings["mirrors"]
utils.MNIST_FILES = settings["files"]
if settings["restricted"]:
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
    if os.getuid() == 0:  # root may write anywhere
        os.setuid(65534)
for root in sys.argv[2:]:
    print(utils.get_trainloader(root=root)[0].source)
