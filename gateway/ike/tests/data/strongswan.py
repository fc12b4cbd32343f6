#!/usr/bin/env python3
"""Makes the golden handshakes beside this script again: two strongSwan daemons (Debian's charon-systemd, 5.9.8 when the
files were made) in two network namespaces negotiate, tcpdump hears the datagrams, and the initiator's log at level 4
has the keys. Needs root, strongswan-swanctl, charon-systemd, libcharon-extra-plugins, libstrongswan-extra-plugins and
tcpdump. Touches nothing outside its namespaces and a temporary directory.

A file has lines `name hex`: the peers' pre-shared key, then every datagram in order (`> hex` from the initiator,
`< hex` from the responder, without the non-ESP marker), then the secrets, by the names that charon's log gives them.
"""
import os, re, struct, subprocess, sys, tempfile, time

HERE = os.path.dirname(os.path.abspath(__file__))
PSK = "an old key for a golden handshake"
# name, version, aggressive, ike proposal, esp proposal, fragmentation
CASES = [
    ("v1-main", 1, "no", "aes128-sha1-modp1024", "aes128-sha1", "no"),
    ("v1-main-stretched", 1, "no", "3des-md5-modp1024", "aes256-sha256-modp2048", "no"),
    ("v1-aggressive", 1, "yes", "aes256-sha256-ecp256", "aes128gcm16-ecp256", "no"),
    ("v1-main-offers", 1, "no", "aes256-aes128-3des-sha512-sha1-modp2048-modp1024", "aes256-aes128-sha512-sha1", "force"),
    ("v2-cbc", 2, "no", "aes256-sha256-x25519", "aes256-sha384", "no"),
    ("v2-gcm", 2, "no", "aes256gcm16-prfsha384-ecp384", "aes256gcm16", "no"),
]
NAMESPACES = ("adit-gold-a", "adit-gold-b")
SECRETS = [
    "shared Diffie Hellman secret", "SKEYID", "SKEYID_d", "SKEYID_a", "SKEYID_e", "encryption key Ka", "initial IV",
    "SKEYSEED", "Sk_d secret", "Sk_ai secret", "Sk_ar secret", "Sk_ei secret", "Sk_er secret", "Sk_pi secret", "Sk_pr secret",
    "initiator SA seed", "responder SA seed", "encryption initiator key", "encryption responder key", "integrity initiator key", "integrity responder key",
]


def run(*command):
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def configure(directory, own, other, case):
    name, version, aggressive, ike, esp, fragmentation = case
    address = ["192.0.2.1", "192.0.2.2"]
    open(f"{directory}/strongswan.conf", "w").write(f"""
charon-systemd {{
  load = random nonce openssl hmac kdf pem pkcs1 x509 pubkey kernel-libipsec kernel-netlink socket-default vici updown
  i_dont_care_about_security_and_use_aggressive_mode_psk = yes
  fragment_size = 300
  plugins {{
    vici {{ socket = unix://{directory}/vici }}
    openssl {{ load_legacy = yes }}
  }}
  journal {{ default = -1 }}
  filelog {{ log {{
    path = {directory}/log
    default = 1
    ike = 4
    chd = 4
    flush_line = yes
  }} }}
}}
swanctl {{ socket = unix://{directory}/vici }}
""")
    open(f"{directory}/swanctl.conf", "w").write(f"""
connections {{ t {{
  version = {version}
  aggressive = {aggressive}
  fragmentation = {fragmentation}
  local_addrs = {address[own]}
  remote_addrs = {address[other]}
  proposals = {ike}
  local {{ auth = psk
    id = {address[own]} }}
  remote {{ auth = psk
    id = {address[other]} }}
  children {{ c {{
    local_ts = 10.{own + 1}.0.0/24
    remote_ts = 10.{other + 1}.0.0/24
    esp_proposals = {esp}
  }} }}
}} }}
secrets {{ ike-1 {{ secret = "{PSK}" }} }}
""")


def secrets(log):
    """Every secret of the log in order, each as its name and its octets."""
    lines = open(log, errors="replace").read().splitlines()
    for at, line in enumerate(lines):
        match = re.search(r"\[(?:IKE|CHD)\] (?:<[^>]*> )?(.*) => (\d+) bytes", line)
        if not match or match[1] not in SECRETS:
            continue
        octets = b""
        for dump in lines[at + 1:]:
            if len(octets) >= int(match[2]):
                break
            octets += bytes.fromhex(re.search(r"\]\s+(?:<[^>]*> )?\s*\d+: ((?:[0-9A-F]{2} )+)", dump)[1])
        yield match[1], octets[:int(match[2])]


def datagrams(pcap):
    """Every IKE message of a capture of Ethernet frames, as whether the initiator sent it and its octets."""
    data = open(pcap, "rb").read()
    at = 24
    while at < len(data):
        length, = struct.unpack_from("<I", data, at + 8)
        frame = data[at + 16:at + 16 + length]
        at += 16 + length
        if frame[12:14] != b"\x08\x00" or frame[23] != 17:
            continue
        udp = frame[14 + (frame[14] & 15) * 4:]
        port, size = struct.unpack_from(">H", udp, 2)[0], struct.unpack_from(">H", udp, 4)[0]
        message = udp[8:size]
        if port == 4500:
            if message[:4] != b"\0\0\0\0":
                continue
            message = message[4:]
        yield frame[26:30] == bytes([192, 0, 2, 1]), message


def make(case):
    processes = []
    with tempfile.TemporaryDirectory() as top:
        try:
            for namespace in NAMESPACES:
                run("ip", "netns", "add", namespace)
                run("ip", "-n", namespace, "link", "set", "lo", "up")
            run("ip", "-n", NAMESPACES[0], "link", "add", "wan", "type", "veth", "peer", "name", "wan", "netns", NAMESPACES[1])
            for own, namespace in enumerate(NAMESPACES):
                run("ip", "-n", namespace, "addr", "add", f"192.0.2.{own + 1}/24", "dev", "wan")
                run("ip", "-n", namespace, "addr", "add", f"10.{own + 1}.0.1/24", "dev", "lo")
                run("ip", "-n", namespace, "link", "set", "wan", "up")
            for own, namespace in enumerate(NAMESPACES):
                directory = f"{top}/{own}"
                os.mkdir(directory)
                configure(directory, own, 1 - own, case)
                environment = dict(os.environ, STRONGSWAN_CONF=f"{directory}/strongswan.conf")
                daemon = ["nsenter", f"--net=/run/netns/{namespace}", "/usr/sbin/charon-systemd"]
                processes.append(subprocess.Popen(daemon, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
                while not os.path.exists(f"{directory}/vici"):
                    time.sleep(0.1)
                run("env", f"STRONGSWAN_CONF={directory}/strongswan.conf", "swanctl", "--load-all", "--file",
                    f"{directory}/swanctl.conf", "-u", f"unix://{directory}/vici")
            capture = ["nsenter", f"--net=/run/netns/{NAMESPACES[0]}", "tcpdump", "-i", "wan", "-U", "-s", "0", "-w", f"{top}/pcap", "udp"]
            processes.append(subprocess.Popen(capture, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
            while not os.path.exists(f"{top}/pcap"):
                time.sleep(0.1)
            time.sleep(0.5)
            run("swanctl", "--initiate", "--child", "c", "--timeout", "10", "-u", f"unix://{top}/0/vici")
            time.sleep(0.5)
            processes.pop().terminate()
            with open(f"{HERE}/{case[0]}.txt", "w") as out:
                out.write(f"# strongSwan {case[3]}, {case[4]}; see strongswan.py\n")
                out.write(f"psk {PSK.encode().hex()}\n")
                for from_initiator, message in datagrams(f"{top}/pcap"):
                    out.write(f"{'>' if from_initiator else '<'} {message.hex()}\n")
                for name, octets in secrets(f"{top}/0/log"):
                    out.write(f"{name.replace(' ', '_')} {octets.hex()}\n")
        finally:
            for process in processes:
                process.terminate()
                process.wait()
            for namespace in NAMESPACES:
                subprocess.run(["ip", "netns", "del", namespace], stderr=subprocess.DEVNULL)


for case in CASES:
    if len(sys.argv) == 1 or case[0] in sys.argv[1:]:
        make(case)
