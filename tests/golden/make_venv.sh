#!/usr/bin/env bash
# usage: make_venv.sh DEST      then: DEST/python generate_step.py
#
# Builds the Python environment of the golden-file generators under DEST. The torch wheel links to GPU
# libraries of several gigabytes that a CPU run never calls; gpu_stand_ins.py puts empty ones in their place.
# Needs python3 (3.11 or later) with venv, gcc and readelf.
set -euo pipefail

if [ $# -ne 1 ]; then
    sed -n 's/^# \(usage: .*\)/\1/p' "$0" >&2
    exit 64
fi
source_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
mkdir -p "$1"
dest=$(cd "$1" && pwd)

python3 -m venv "$dest/venv"
"$dest/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps -r "$source_dir/requirements.txt"
site_packages=$("$dest/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
"$dest/venv/bin/python" "$source_dir/gpu_stand_ins.py" "$site_packages/torch/lib" "$dest/stand-ins"

cat > "$dest/python" <<EOF
#!/usr/bin/env bash
export LD_LIBRARY_PATH="$dest/stand-ins\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}"
exec "$dest/venv/bin/python" "\$@"
EOF
chmod +x "$dest/python"
"$dest/python" -c 'import torch, torchvision; print(torch.__version__, torchvision.__version__, torch.ones(2).sum().item())'
