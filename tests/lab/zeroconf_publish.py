"""Publish services with python-zeroconf until SIGTERM.

Usage: zeroconf_publish.py ADDRESS PORT KEY=VALUE TYPE NAME [TYPE NAME]...

A type may have a subtype: _color._sub._ipp._tcp. Prints "ready" once all are announced.
"""

import signal
import socket
import sys

from zeroconf import IPVersion, ServiceInfo, Zeroconf


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    address, port, pair = sys.argv[1:4]
    key, value = pair.split("=", 1)
    zc = Zeroconf(ip_version=IPVersion.V4Only)
    try:
        for type_, name in zip(sys.argv[4::2], sys.argv[5::2]):
            base = type_.rsplit("._sub.", 1)[-1]
            info = ServiceInfo(
                f"{type_}.local.",
                f"{name}.{base}.local.",
                addresses=[socket.inet_aton(address)],
                port=int(port),
                properties={key: value},
                server="python-zeroconf.local.",
            )
            zc.register_service(info)
        print("ready", flush=True)
        signal.pause()
    finally:
        zc.close()


if __name__ == "__main__":
    main()
