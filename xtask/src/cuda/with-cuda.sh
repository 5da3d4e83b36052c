#!/bin/sh
# with-cuda PROGRAM [ARGUMENTS]: starts a program with the CUDA 13 libraries of this machine: those that
# PyTorch brought, so that both compute with the same versions, otherwise those of an installed CUDA. PYTHON names
# the interpreter that has PyTorch.
set -eu
if [ $# -eq 0 ]; then
    echo "usage: with-cuda PROGRAM [ARGUMENTS]" >&2
    exit 2
fi
folders=$("${PYTHON:-python3}" - <<'PYTHON'
import pathlib
import site
import sys
import sysconfig

wanted = ["libcublas.so.13", "libcublasLt.so.13", "libcurand.so.10", "libnvrtc.so.13", "libcudnn.so.9", "libnccl.so.2"]
# In the order in which Python looks for torch, so that the libraries are those of the one that it imports.
packages = [*filter(None, sys.path), sysconfig.get_paths()["purelib"], *site.getsitepackages(), site.getusersitepackages()]
places = []
for folder in dict.fromkeys(packages):
    places += sorted(pathlib.Path(folder).glob("nvidia/*/lib"))
    places.append(pathlib.Path(folder) / "torch" / "lib")
places += [pathlib.Path("/usr/local/cuda/lib64"), pathlib.Path("/usr/lib/x86_64-linux-gnu")]
found = set()
for library in wanted:
    place = next((place for place in places if (place / library).exists()), None)
    if place is None:
        print(f"with-cuda: {library} not found", file=sys.stderr)
    else:
        found.add(place)
# The loader takes a library from the first folder that has it, so the order stays that of the places.
print(":".join(str(place) for place in dict.fromkeys(places) if place in found))
PYTHON
)
export LD_LIBRARY_PATH="$folders${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
exec "$@"
