#!/usr/bin/env bash
# Pack a small root file system around a Python of this machine, for `docker import`: nothing is downloaded.
# usage: rootfs.sh PYTHON OUT.tar
# PYTHON is the interpreter of a virtual environment or its base; it lies in the image where it lies here, so that the
# virtual environment works when it is mounted at its own place.
set -euo pipefail
out=$(realpath -m "$2")
base=$("$1" -c 'import sys; print(sys.base_prefix)')
library=$("$1" -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')
program=$(realpath "$("$1" -c 'import sys; print(sys._base_executable)')")
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
mkdir -p "$root"/{usr/bin,usr/lib,usr/lib64,etc,proc,sys,dev,tmp,var/tmp}
chmod 755 "$root"
chmod 1777 "$root/tmp" "$root/var/tmp"
ln -s usr/bin "$root/bin"
ln -s usr/lib "$root/lib"
ln -s usr/lib64 "$root/lib64"
tools=$(for tool in bash cat env id ls sh sleep tee; do type -P "$tool"; done)
for tool in $tools; do cp -L "$tool" "$root/usr/bin/"; done
mkdir -p "$root$base/bin" "$root$library" "$root$(dirname "$program")"
cp "$program" "$root$program"
for name in python python3; do
    [ -e "$root$base/bin/$name" ] || ln -s "$program" "$root$base/bin/$name"
done
tar -C "$library" --exclude='*.opt-?.pyc' --exclude=./site-packages --exclude=./dist-packages --exclude=./test \
    --exclude=./idlelib --exclude=./ensurepip --exclude='./config-*' -cf - . | tar -C "$root$library" -xf -
ln -sf "$program" "$root/usr/bin/python"
# Names of the C and C++ runtimes that binary wheels ask for although nothing above links to them.
wanted='libpthread\.so\.0|libdl\.so\.2|librt\.so\.1|libutil\.so\.1|libm\.so\.6|libgcc_s\.so\.1|libstdc\+\+\.so\.6|libnss_files\.so\.2'
{
    for file in $tools "$program"; do ldd "$file" 2>/dev/null || true; done
    find "$root$library" -name '*.so' -exec ldd {} + 2>/dev/null || true
    ldconfig -p | grep -E "^\s*($wanted) " | grep -F x86-64 || ldconfig -p | grep -E "^\s*($wanted) "
} | grep -oE '/[^ )]+' | grep -E '\.so' | sort -u | while read -r file; do
    target=$root$(realpath -m "$(dirname "$file")")
    [ -f "$file" ] || continue
    # The links /lib and /lib64 of the image lead to /usr, as they do here.
    case "$target" in "$root/lib"*) target="$root/usr${target#"$root"}" ;; esac
    mkdir -p "$target"
    cp -Ln "$file" "$target/" 2>/dev/null || true
done
loader=$(ldd "$program" | grep -oE '/lib64/ld-[^ ]+|/lib/ld-[^ ]+' | head -n 1)
[ -e "$root/usr$loader" ] || cp -L "$loader" "$root/usr$loader"
echo 'root:x:0:0:root:/root:/bin/sh' >"$root/etc/passwd"
echo 'root:x:0:' >"$root/etc/group"
echo '127.0.0.1 localhost' >"$root/etc/hosts"
chmod 755 "$root" "$root/root" 2>/dev/null || true
tar -C "$root" -cf "$out" .
