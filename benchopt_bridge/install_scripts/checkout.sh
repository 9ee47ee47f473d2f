# benchopt runs this in the environment that it installs into: the package itself, from this checkout
root="$(cd "$(dirname "$0")/../.." && pwd)"
python -m pip install --constraint "$root/constraints.txt" "$root"
