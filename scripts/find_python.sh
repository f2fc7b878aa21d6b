#!/bin/sh
# Prints the Python that sets up .venv: PYTHON where it is named, else the one of .venv, else the first that fits.
#   sh scripts/find_python.sh VENV [PYTHON]
fits='import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))'
version='import sys; print("%d.%d.%d" % sys.version_info[:3])'
venv=$1
found=
if [ -n "$2" ]; then set -- "$2"; else set -- "$venv/bin/python" python3 python3.13 python3.12 python3.11 python3.14; fi
for python in "$@"; do
    if "$python" -c "$fits" 2>/dev/null; then
        command -v "$python"
        exit
    fi
    is="$("$python" -c "$version" 2>/dev/null)" && found="$found, found $is ($python)"
done
echo "Python 3.11 to 3.14 is needed$found: install one (Debian, Ubuntu: apt install python3.11 python3.11-venv)" \
    "or name one (make run PYTHON=/path/to/python3.11)" >&2
exit 2
