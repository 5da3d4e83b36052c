#!/bin/sh
# with-cuda PROGRAM [ARGUMENTS]: starts a program with the CUDA 13 libraries of this machine: those of an
# installed CUDA, else those that PyTorch brought. PYTHON names the interpreter that has it.
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
packages = [sysconfig.get_paths()["purelib"], *site.getsitepackages(), site.getusersitepackages()]
places = [pathlib.Path("/usr/local/cuda/lib64"), pathlib.Path("/usr/lib/x86_64-linux-gnu")]
for folder in dict.fromkeys(packages):
    places += sorted(pathlib.Path(folder).glob("nvidia/*/lib"))
    places.append(pathlib.Path(folder) / "torch" / "lib")
found = []
for library in wanted:
    place = next((place for place in places if (place / library).exists()), None)
    if place is None:
        print(f"with-cuda: {library} not found", file=sys.stderr)
    elif str(place) not in found:
        found.append(str(place))
print(":".join(found))
PYTHON
)
export LD_LIBRARY_PATH="$folders${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
exec "$@"
