"""Tests for :mod:`derp.command_line`: whole command lines to whole configurations."""

import math
from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from derp.command_line import config_from_flags, default_certdir
from derp.config import CertMode, Config, MeshPeer
from derp.config_file import ACTIONS
from derp.errors import ConfigError
from derp.flags import FLAGS, GROUPS
from derp.goflag import Flag, Kind, parse_flags

ENVIRON = {"HOME": "/nonexistent/home"}
CERTDIR = "/nonexistent/home/.cache/tailscale/derper-certs"
MESH_KEY = "0123456789abcdef" * 4
NAMED = {"localhost": "127.0.0.1"}


def configure(line: str, environ: dict[str, str] = ENVIRON, *, is_root: bool = True) -> Config:
    """What a command line means, split at blanks; no network, no real user."""
    given_flags = parse_flags(FLAGS, line.split()).given
    return config_from_flags(given_flags, environ, is_root=is_root, resolve=NAMED.__getitem__)


PLAIN = Config(
    port=80,
    key_file="/var/lib/derper/derper.key",
    certdir=CERTDIR,
    tls=False,
    notices=("no -c given: the key file is /var/lib/derper/derper.key",),
)
MANUAL = replace(PLAIN, port=443, certmode=CertMode.MANUAL, tls=True)
DEV = replace(PLAIN, dev=True, port=3340, key_file="", notices=())
NO_TLS = "has no effect on plain HTTP: TLS is asked for with --tls or port 443"

NAME = "--hostname a.test -c /k"
ACME = replace(PLAIN, port=443, tls=True, hostname="a.test", key_file="/k", notices=())

WHOLE: dict[str, Config] = {
    "-a :80": PLAIN,
    "-c /k": replace(
        ACME,
        hostname="derp.tailscale.com",
        notices=(
            "no --hostname given: derp.tailscale.com is Tailscale's, and only they get a "
            "certificate for it",
        ),
    ),
    f"{NAME} --acme-email b@a.test": replace(ACME, acme_email="b@a.test"),
    f"{NAME} -a :8443 --acme-directory https://ca.test/d --acme-ca-file /r": replace(
        ACME, port=8443, acme_directory="https://ca.test/d", acme_ca_file="/r"
    ),
    "-c /k --hostname relay --acme-directory https://ca.test/d": replace(
        ACME, hostname="relay", acme_directory="https://ca.test/d"
    ),
    f"{NAME} --acme-profile shortlived": replace(ACME, acme_profile="shortlived"),
    f"{NAME} -a :8443 --acme-ip-address 192.0.2.7 --acme-ip-address 2001:DB8::0:7": replace(
        ACME, port=8443, acme_ip_certs=True, acme_ip_address=("192.0.2.7", "2001:db8::7")
    ),
    "-c /k --hostname 192.0.2.7 --acme-ip-certs": replace(
        ACME, hostname="192.0.2.7", acme_ip_certs=True
    ),
    f"{NAME} --certmode gcp --acme-eab-kid k --acme-eab-key dGVzdC1rZXk --acme-email b@a.test": (
        replace(
            ACME,
            certmode=CertMode.GCP,
            acme_eab_kid="k",
            acme_eab_key="dGVzdC1rZXk",
            acme_email="b@a.test",
        )
    ),
    f"{NAME} --acme-dns-hook /bin/hook": replace(ACME, acme_dns_hook=("/bin/hook",)),
    f"{NAME} --certmode manual --acme-email b@a.test": replace(
        ACME,
        certmode=CertMode.MANUAL,
        acme_email="b@a.test",
        notices=("--acme-email has no effect with --certmode manual",),
    ),
    "--certmode manual": MANUAL,
    "-certmode=manual -a [::1]:8443": replace(MANUAL, host="::1", port=8443),
    "--certmode manual -a :https": MANUAL,
    "--certmode manual --tls -a localhost:0": replace(MANUAL, host="127.0.0.1", port=0),
    "--certmode manual -a :0 --http-port 0": replace(MANUAL, port=0, http_port=0),
    "--certmode manual --http-port -1": replace(MANUAL, http_port=-1),
    "--certmode manual --http-port -7": replace(MANUAL, http_port=-1),
    "--certmode manual --hostname 192.0.2.7 --certdir /c": replace(
        MANUAL, hostname="192.0.2.7", certdir="/c"
    ),
    "-a 192.0.2.7:8080 -c /k": replace(
        PLAIN, host="192.0.2.7", port=8080, key_file="/k", notices=()
    ),
    "-a :80 --tls=false": PLAIN,
    "--dev": DEV,
    "-dev=true -a 192.0.2.7:443 -c /k": replace(
        DEV,
        notices=(
            "--dev listens on port 3340: -a has no effect",
            "--dev makes a key that is forgotten at the end: -c has no effect",
        ),
    ),
    "--dev --certmode manual": replace(DEV, certmode=CertMode.MANUAL, tls=True),
    "--dev --certmode letsencrypt --http-port 81 --certdir /c": replace(
        DEV,
        http_port=81,
        certdir="/c",
        notices=tuple(f"--{name} {NO_TLS}" for name in ("certmode", "certdir", "http-port")),
    ),
    "--dev --stun=false --stun-port 3479 --stun-generic": replace(
        DEV,
        stun=False,
        stun_port=3479,
        stun_generic=True,
        notices=(
            "--stun-port has no effect with --stun=false",
            "--stun-generic has no effect with --stun=false",
        ),
    ),
    "--dev --derp=false --home blank --ace": replace(DEV, derp=False, home="blank", ace=True),
    "--dev --home https://example.test/x": replace(DEV, home="https://example.test/x"),
    "--dev --bootstrap-dns-names a,,b --unpublished-bootstrap-dns-names c/t": replace(
        DEV,
        bootstrap_dns_names=("a", "b"),
        unpublished_bootstrap_dns_names=("c/t",),
    ),
    "--dev --tcp-keepalive-time -1s --tcp-user-timeout 0 --tcp-write-timeout 500ms": replace(
        DEV, tcp_keepalive_time=-1.0, tcp_user_timeout=0.0, tcp_write_timeout=0.5
    ),
    "--dev --metrics-addr localhost:9100": replace(DEV, metrics_addr="127.0.0.1:9100"),
    "--dev --metrics-addr [::1]:9100": replace(DEV, metrics_addr="[::1]:9100"),
    "--dev --metrics-addr :9100": replace(DEV, metrics_addr=":9100"),
    "--dev --verify-clients=false --verify-client-url= --accept-connection-limit inf": DEV,
    "--dev --mesh-with=": DEV,
    "-a :80 --secrets-url http://a.test/ --secrets-cache-dir /c --mesh-psk-file /k": replace(
        PLAIN,
        secrets_url="http://a.test",
        secrets_cache_dir="/c",
        notices=(
            *PLAIN.notices,
            "--secrets-url holds the mesh key: --mesh-psk-file has no effect",
        ),
    ),
    "-a :80 --secrets-url http://a.test --secrets-path-prefix p": replace(
        PLAIN,
        secrets_url="http://a.test",
        secrets_path_prefix="p",
        secrets_cache_dir="/nonexistent/home/.cache/derper-secrets",
    ),
    "--dev --secrets-url http://a.test": replace(
        DEV,
        secrets_cache_dir="/nonexistent/home/.cache/derper-secrets",
        notices=(
            "--dev takes the mesh key from TAILSCALE_DERPER_MESH_KEY: --secrets-url has no effect",
        ),
    ),
    "--dev --mesh-with a.test,b.test:8443/192.0.2.1 --mesh-with-file /f --mesh-ca-file /c": replace(
        DEV,
        mesh_with=(
            MeshPeer(name="a.test", host="a.test"),
            MeshPeer(name="b.test:8443/192.0.2.1", host="b.test", port=8443, dial_host="192.0.2.1"),
        ),
        mesh_with_file="/f",
        mesh_ca_file="/c",
    ),
    "--dev --drain-seconds 30s --handover-socket /run/h --stun-follows-readiness": replace(
        DEV, drain_seconds=30.0, handover_socket="/run/h", stun_follows_readiness=True
    ),
    "--dev --verify-clients --socket /a --socket /b --reverify-interval 1m": replace(
        DEV, verify_clients=True, socket=("/a", "/b"), reverify_interval=60.0
    ),
    "--dev --verify-client-url https://a.test/verify?x=1 --verify-client-url http://u:p@[::1]:80 "
    "--verify-client-url-fail-open=false --verify-policy any --allow-clients /keys": replace(
        DEV,
        verify_client_url=("https://a.test/verify?x=1", "http://u:p@[::1]:80"),
        verify_client_url_fail_open=False,
        verify_policy="any",
        allow_clients="/keys",
    ),
    "--dev --socket /a --verify-client-url-fail-open --verify-policy all": replace(
        DEV,
        socket=("/a",),
        notices=(
            "--socket has no effect without --verify-clients",
            "--verify-client-url-fail-open has no effect without --verify-client-url",
            "--verify-policy has no effect: nothing says who may use this relay "
            "(--verify-clients, --verify-client-url or --allow-clients)",
        ),
    ),
}

EAB = "--acme-eab-kid k --acme-eab-key dGVzdC1rZXk="
REFUSED: dict[str, str] = {
    "--hostname 192.0.2.7": "add --acme-ip-certs to get certificates for addresses",
    "--hostname relay": '--hostname "relay": no authority gives a certificate for that',
    "--hostname *.a.test": "no authority gives a certificate for that",
    "--hostname https://a.test": "give a full DNS name and nothing else",
    "--hostname a.test:443": "give a full DNS name and nothing else",
    '--hostname "a.test"': "give a full DNS name and nothing else",
    "--acme-directory https://a.test/d --hostname a..test": "give a full DNS name",
    "--certdir=": "--certdir is empty",
    "--certmode gcp": "--certmode gcp requires --acme-eab-kid and --acme-eab-key",
    "--certmode gcp --acme-eab-kid k": "requires --acme-eab-kid and --acme-eab-key",
    f"--certmode gcp {EAB}": "--certmode gcp requires --acme-email",
    f"--certmode gcp {EAB} --acme-email a@b.test --hostname a.test/": "give a full DNS name",
    "--certmode gcp --hostname 192.0.2.7": "--certmode gcp needs a DNS name as --hostname",
    "--certmode gcp --acme-ip-certs": "--acme-ip-certs requires --certmode letsencrypt, not gcp",
    "--certmode manual --acme-ip-certs": "--acme-ip-certs requires --certmode letsencrypt",
    "--certmode manual --acme-ip-address 192.0.2.7": "--acme-ip-address requires --certmode let",
    "--acme-profile kürzer": '--acme-profile: "kürzer" is no name of a profile',
    "--acme-ip-address relay": '--acme-ip-address: "relay" is no IP address',
    "--acme-eab-kid k": "--acme-eab-kid and --acme-eab-key belong together",
    "--dev --acme-eab-key not-valid!": "--acme-eab-key is neither base64url",
    "--acme-directory http://a.test/": '--acme-directory: "http://a.test/" is no https:// URL',
    "--acme-directory https:///d": "is no https:// URL",
    "--acme-directory https://a.test:99999/d": "is no https:// URL",
    "--acme-email a.test": '--acme-email: "a.test" is no address for mail',
    "--acme-email a@a.test,b@a.test": "is no address for mail",
    "-a :80 --acme-directory https://a.test/d --tls=false": "--tls=false contradicts --acme-dir",
    "--dev --acme-dns-hook '": "--acme-dns-hook: No closing quotation; quote it as for a shell",
    "-a :80 --certmode bogus": '--certmode: there is no mode "bogus": use one of manual, lets',
    "-a :80 --certmode manual --tls=false": "--tls=false contradicts --certmode manual",
    "--tls=false": "--tls=false contradicts port 443 in -a",
    "-a 443": '-a: invalid server address "443"',
    "-a :70000": "-a: there is no port 70000",
    "--dev --http-port 70000": "--http-port: there is no port 70000",
    "--dev --stun-port -1": "--stun-port: there is no port -1",
    "--dev --metrics-addr 9100": '--metrics-addr: invalid server address "9100"',
    "--certmode manual --http-port 443": "--http-port 443 is the port of -a already",
    "--certmode manual --certdir=": "--certdir is empty",
    "--certmode manual --hostname=": "--hostname is empty",
    "--dev --home ftp://x": '--home: unknown value "ftp://x"',
    "--dev --home Blank": '--home: unknown value "Blank"',
    "--dev --tcp-user-timeout -1s": "--tcp-user-timeout: -1s is negative",
    "--dev --tcp-write-timeout -1ms": "--tcp-write-timeout: -1ms is negative",
    "--dev --tcp-user-timeout 600h": "--tcp-user-timeout: 600h0m0s is too long",
    "--dev --tcp-keepalive-time 10h": "give at most 9h6m7s",
    "--dev --verify-client-url ftp://a.test/": '--verify-client-url: "ftp://a.test/" cannot be',
    "--dev --verify-client-url a.test": '--verify-client-url: "a.test" cannot be asked: give an',
    "--dev --verify-client-url http:///verify": "cannot be asked",
    "--dev --verify-client-url http://a.test:x/": "cannot be asked",
    "--dev --verify-policy some": '--verify-policy: there is no policy "some": give all or any',
    "--dev --drain-seconds -1s": "--drain-seconds: -1s is negative",
    "--dev --drain-seconds 2h": "--drain-seconds: 2h0m0s is too long",
    "--dev --reverify-interval 1ms": "--reverify-interval: 1ms is too short: give at least 1s",
    "--dev --reverify-interval -1s": "--reverify-interval: -1s is negative",
    "--dev --reverify-interval 9000h": "--reverify-interval: 9000h0m0s is too long",
    "--dev --mesh-with a.test,": '--mesh-with: "" is no relay to mesh with: write it as',
    "--dev --mesh-with a.test/b/c": '--mesh-with: "a.test/b/c" is no relay to mesh with',
    "--dev --mesh-with a.test#pin": "a pin is sha256-raw: and 64 hex digits",
    "-a :80 --secrets-url a.test": '--secrets-url: "a.test" is no http:// or https:// URL',
    "-a :80 --secrets-url http://:80/": "--secrets-url: ",
    "-a :80 --mesh-psk-file /nonexistent/key": '--mesh-psk-file: cannot read "/nonexistent/key"',
}


SIZES = ("server-rate-limit", "monthly-quota")
"""Flags whose text is a number of bytes in the configuration."""


class ConfigFromFlagsTests(SynchronousTestCase):
    """:func:`derp.command_line.config_from_flags`."""

    maxDiff = None

    def test_whole(self) -> None:
        """Every field of the result, for the ways people start a relay."""
        for line, config in WHOLE.items():
            with self.subTest(line=line):
                self.assertEqual((line, configure(line)), (line, config))

    def test_refused(self) -> None:
        """Each unusable line gets one sentence that names the flag."""
        for line, sentence in REFUSED.items():
            with self.subTest(line=line):
                error = self.assertRaises(ConfigError, configure, line)
                self.assertIn(sentence, str(error), line)
                self.assertNotIn("\n", str(error))

    def test_every_flag_has_a_field(self) -> None:
        """A flag that is not kept would be silently ignored."""
        kept = set(Config.__dataclass_fields__)
        elsewhere = {
            "a": "port",
            "c": "key_file",
            "mesh-psk-file": "mesh_key",
            "stun-addr": "stun_host",
        }
        for flag in FLAGS:
            if flag.name not in ACTIONS:
                self.assertIn(elsewhere.get(flag.name, flag.name.replace("-", "_")), kept)

    def test_key_file_of_others(self) -> None:
        """Only root has a default key file."""
        error = self.assertRaises(ConfigError, configure, "-a :80", is_root=False)
        self.assertIn("-c is not given", str(error))
        self.assertEqual(configure("-a :80 -c /k", is_root=False).key_file, "/k")
        self.assertEqual(configure("--dev", is_root=False), DEV)

    def test_mesh_key(self) -> None:
        """The mesh key is read from the file, or with ``--dev`` from the environment."""
        path = Path(self.mktemp())
        path.write_text(MESH_KEY + "\n")
        raw = bytes.fromhex(MESH_KEY)
        config = configure(f"-a :80 --mesh-psk-file {path}")
        self.assertEqual((config.mesh_key, config.mesh_psk_file), (raw, str(path)))
        environ = ENVIRON | {"TAILSCALE_DERPER_MESH_KEY": MESH_KEY}
        config = configure("--dev", environ)
        self.assertEqual(config, replace(DEV, mesh_key=raw))
        self.assertNotIn(MESH_KEY[:16], repr(config))

    def test_environment(self) -> None:
        """Debug variables are part of the configuration, skipped entries of the notices."""
        environ = ENVIRON | {"DERP_DEBUG_LOGS": "1", "TS_DEBUG_VERBOSE_DROPS": "x"}
        config = configure("--dev", environ)
        self.assertTrue(config.knobs.debug_logs)
        self.assertIn('skipping "x"', config.notices[0])
        error = self.assertRaises(ConfigError, configure, "--dev", {"DERP_DEBUG_LOGS": "maybe"})
        self.assertIn("DERP_DEBUG_LOGS", str(error))

    def test_defaults_agree(self) -> None:
        """A default stands once in the table of flags and once in Config, with one value."""
        fields = Config.__dataclass_fields__
        for flag in FLAGS:
            field = fields.get(flag.name.replace("-", "_"))
            if (
                field is None
                or flag.default_text
                or flag.name in ("tls", "accept-connection-limit", *SIZES)
            ):
                continue
            default = () if field.default == () and flag.default == "" else flag.default
            self.assertEqual((flag.name, field.default), (flag.name, default))
        self.assertEqual(Config().accept_connection_limit, math.inf)


class DefaultCertdirTests(SynchronousTestCase):
    """:func:`derp.command_line.default_certdir`: Go's user cache directory."""

    def test_places(self) -> None:
        """XDG before HOME, and nothing without an absolute one of them."""
        table: list[tuple[dict[str, str], str]] = [
            ({"HOME": "/h"}, "/h/.cache/tailscale/derper-certs"),
            ({"HOME": "/h", "XDG_CACHE_HOME": "/x"}, "/x/tailscale/derper-certs"),
            ({"HOME": "/h", "XDG_CACHE_HOME": ""}, "/h/.cache/tailscale/derper-certs"),
            ({"XDG_CACHE_HOME": "x"}, ""),
            ({}, ""),
        ]
        for environ, path in table:
            self.assertEqual(default_certdir(environ), path)

    def test_none(self) -> None:
        """TLS without a directory says which flag helps; plain HTTP does not care."""
        error = self.assertRaises(ConfigError, configure, "--certmode manual", {})
        self.assertIn("--certdir is empty", str(error))
        self.assertEqual(configure("--dev", {}).certdir, "")


class FlagTableTests(SynchronousTestCase):
    """:data:`derp.flags.FLAGS`."""

    def test_names_are_unique(self) -> None:
        """One flag, one entry."""
        names = [flag.name for flag in FLAGS]
        self.assertEqual(len(names), len(set(names)))
        self.assertEqual(sum(len(group) for _, group in GROUPS), len(FLAGS))

    def test_defaults_have_the_kind(self) -> None:
        """A default is what a given value would be: the kinds are not mixed up."""
        kinds = {
            Kind.BOOL: bool,
            Kind.INT: int,
            Kind.FLOAT: float,
            Kind.STRING: str,
            Kind.DURATION: float,
            Kind.STRINGS: tuple,
        }
        for flag in FLAGS:
            self.assertIs(type(flag.default), kinds[flag.kind], flag.name)

    @given(st.dictionaries(st.sampled_from(FLAGS), st.text(max_size=12), max_size=5))
    def test_anything(self, values: dict[Flag, str]) -> None:
        """No combination of flags raises anything but the operator's error."""
        line = [f"--{flag.name}={text}" for flag, text in values.items()]
        try:
            parsed = parse_flags(FLAGS, line)
            config_from_flags(parsed.given, ENVIRON, is_root=True, resolve=_nowhere)
        except ConfigError as error:
            self.assertTrue(str(error).isprintable(), str(error))


def _nowhere(name: str) -> str:
    raise OSError(f"no network in tests: {name}")
