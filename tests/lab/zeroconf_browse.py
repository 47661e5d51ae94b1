"""Browse a service type with python-zeroconf and print one JSON line per event.

Usage: zeroconf_browse.py TYPE SECONDS, for example zeroconf_browse.py _demo._tcp 5
"""

import json
import sys
import time

from zeroconf import IPVersion, ServiceBrowser, ServiceListener, Zeroconf


def text(value):
    return None if value is None else value.decode("utf-8", "backslashreplace")


class Printer(ServiceListener):
    def add_service(self, zc, type_, name):
        self.report("added", zc, type_, name)

    def update_service(self, zc, type_, name):
        self.report("updated", zc, type_, name)

    def remove_service(self, zc, type_, name):
        self.say({"event": "removed", "name": name})

    def report(self, event, zc, type_, name):
        line = {"event": event, "name": name, "server": None, "port": None, "addresses": [], "txt": {}}
        info = zc.get_service_info(type_, name, timeout=3000)
        if info is not None:
            line["server"] = info.server
            line["port"] = info.port
            line["addresses"] = info.parsed_scoped_addresses()
            line["txt"] = {text(key): text(value) for key, value in info.properties.items()}
        self.say(line)

    @staticmethod
    def say(line):
        print(json.dumps(line), flush=True)


def has_ipv6():
    try:
        with open("/proc/self/net/if_inet6", encoding="ascii") as addresses:
            return bool(addresses.read())
    except OSError:
        return False


def main():
    type_, seconds = sys.argv[1], float(sys.argv[2])
    end = time.monotonic() + seconds
    zc = Zeroconf(ip_version=IPVersion.All if has_ipv6() else IPVersion.V4Only)
    try:
        ServiceBrowser(zc, f"{type_}.local.", Printer())
        time.sleep(max(0.0, end - time.monotonic()))
    finally:
        zc.close()


if __name__ == "__main__":
    main()
