"""Lists a tar as an independent reader sees it: a JSON object a line."""
import hashlib, json, sys, tarfile

with tarfile.open(sys.argv[1]) as tar:
    for member in tar:
        content = tar.extractfile(member).read() if member.isreg() else b""
        xattrs = {key[13:]: value.encode("utf-8", "surrogateescape").hex() for key, value in member.pax_headers.items() if key.startswith("SCHILY.xattr.")}
        print(json.dumps({
            "name": member.name, "type": member.type.decode(), "mode": member.mode, "uid": member.uid, "gid": member.gid, "mtime": float(member.mtime),
            "target": member.linkname, "device": [member.devmajor, member.devminor], "size": member.size,
            "digest": "sha256:" + hashlib.sha256(content).hexdigest() if member.isreg() else None, "xattrs": xattrs,
        }))
