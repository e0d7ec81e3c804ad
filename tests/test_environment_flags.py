"""Tests for :mod:`derp.environment_flags`: every variable of the images, and their rules."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from derp.environment_flags import (
    DOMAIN_DEFAULTS,
    OWN_FAMILY,
    PLAIN_DEFAULTS,
    VARIABLES,
    EnvironmentFlags,
    read_environment,
)
from derp.errors import ConfigError
from derp.flags import FLAGS
from derp.goflag import Value

MACHINE = "3f2a9c0d1e4b"
NO_LIMIT = 9223372036854775807

TABLE: dict[str, tuple[str, str, Value]] = {
    "DERP_DOMAIN": ("derper.your-domain.com", "hostname", "derper.your-domain.com"),
    "DERP_CERT_DIR": ("/app/certs", "certdir", "/app/certs"),
    "DERP_CERT_MODE": ("letsencrypt", "certmode", "letsencrypt"),
    "DERP_ADDR": (":443", "a", ":443"),
    "DERP_STUN": ("true", "stun", True),
    "DERP_STUN_PORT": ("3478", "stun-port", 3478),
    "DERP_HTTP_PORT": ("-1", "http-port", -1),
    "DERP_VERIFY_CLIENTS": ("false", "verify-clients", False),
    "DERP_VERIFY_CLIENT_URL": (
        "https://headscale.test/verify",
        "verify-client-url",
        ("https://headscale.test/verify",),
    ),
    "DERP_VERIFY_CLIENT_URL_FAIL_OPEN": ("true", "verify-client-url-fail-open", True),
    "DEV": ("false", "dev", False),
    "VERSION_FLAG": ("false", "version", False),
    "ADDR": (":443", "a", ":443"),
    "HTTP_PORT": ("80", "http-port", 80),
    "STUN_PORT": ("3478", "stun-port", 3478),
    "CONFIG_PATH": ("/keys/derper.key", "c", "/keys/derper.key"),
    "CERT_MODE": ("manual", "certmode", "manual"),
    "CERTMODE": ("manual", "certmode", "manual"),
    "CERT_DIR": ("derper-certs", "certdir", "derper-certs"),
    "HOSTNAME": ("127.0.0.1", "hostname", "127.0.0.1"),
    "RUN_STUN": ("true", "stun", True),
    "RUN_DERP": ("1", "derp", True),
    "FLAGHOME": ("blank", "home", "blank"),
    "MESH_PSKFILE": ("/keys/mesh", "mesh-psk-file", "/keys/mesh"),
    "MESH_WITH": ("a.test,b.test:8443", "mesh-with", "a.test,b.test:8443"),
    "SECRETS_URL": ("https://setec.test", "secrets-url", "https://setec.test"),
    "SECRETS_PREFIX": ("prod/derp", "secrets-path-prefix", "prod/derp"),
    "SECRET_PREFIX": ("prod/derp", "secrets-path-prefix", "prod/derp"),
    "SECRETS_CACHEDIR": ("derper-secrets", "secrets-cache-dir", "derper-secrets"),
    "BOOTSTRAP_DNS": ("a.test,b.test", "bootstrap-dns-names", "a.test,b.test"),
    "UNPUBLISHED_DNS": ("c.test", "unpublished-bootstrap-dns-names", "c.test"),
    "VERIFY_CLIENTS": ("true", "verify-clients", True),
    "VERIFY_CLIENT_URL": (
        "https://a.test/v?x=1,2 https://b.test/v",
        "verify-client-url",
        ("https://a.test/v?x=1,2", "https://b.test/v"),
    ),
    "VERIFY_FAIL_OPEN": ("F", "verify-client-url-fail-open", False),
    "SOCKET": ("/run/tailscaled.sock", "socket", ("/run/tailscaled.sock",)),
    "ACCEPT_CONNECTION_LIMIT": ("+Inf", "accept-connection-limit", math.inf),
    "ACCEPT_CONNECTION_BURST": (str(NO_LIMIT), "accept-connection-burst", NO_LIMIT),
    "TCP_KEEPALIVE_TIME": ("10m0s", "tcp-keepalive-time", 600.0),
    "TCP_USER_TIMEOUT": ("15s", "tcp-user-timeout", 15.0),
    "TCP_WRITE_TIMEOUT": ("2s", "tcp-write-timeout", 2.0),
    "DERP_TLS": ("true", "tls", True),
    "DERP_STUN_ADDR": ("192.0.2.7:3478", "stun-addr", "192.0.2.7:3478"),
    "DERP_LISTEN": ("tcp:[::1]:8080 unix:/s", "listen", ("tcp:[::1]:8080", "unix:/s")),
    "DERP_TRUSTED_PROXIES": ("10.0.0.0/8,unix", "trusted-proxies", "10.0.0.0/8,unix"),
    "DERP_ACME_EMAIL": ("a@b.test", "acme-email", "a@b.test"),
    "DERP_ACME_DIRECTORY": ("https://ca.test/d", "acme-directory", "https://ca.test/d"),
    "DERP_ACME_CA_FILE": ("/ca", "acme-ca-file", "/ca"),
    "DERP_ACME_EAB_KID": ("kid", "acme-eab-kid", "kid"),
    "DERP_ACME_EAB_KEY": ("a2V5", "acme-eab-key", "a2V5"),
    "DERP_ACME_IP_CERTS": ("true", "acme-ip-certs", True),
    "DERP_ACME_IP_ADDRESS": (
        "192.0.2.7 2001:db8::7",
        "acme-ip-address",
        ("192.0.2.7", "2001:db8::7"),
    ),
    "DERP_ACME_DNS_HOOK": ("/hook --fast", "acme-dns-hook", "/hook --fast"),
    "DERP_METRICS_ADDR": (":9090", "metrics-addr", ":9090"),
    "DERP_ACE": ("true", "ace", True),
    "DERP_MESH_WITH_FILE": ("/peers", "mesh-with-file", "/peers"),
    "DERP_MESH_CA_FILE": ("/ca", "mesh-ca-file", "/ca"),
    "DERP_ALLOW_CLIENTS": ("/clients", "allow-clients", "/clients"),
    "DERP_VERIFY_POLICY": ("any", "verify-policy", "any"),
    "DERP_REVERIFY_INTERVAL": ("1m", "reverify-interval", 60.0),
    "DERP_MAX_HANDSHAKES": ("100", "max-handshakes", 100),
    "DERP_MAX_CLIENTS": ("0x10", "max-clients", 16),
    "DERP_MAX_CLIENTS_PER_IP": ("4", "max-clients-per-ip", 4),
    "DERP_RATE_CONFIG": ("/rates", "rate-config", "/rates"),
    "DERP_SERVER_RATE_LIMIT": ("10MB", "server-rate-limit", "10MB"),
    "DERP_MONTHLY_QUOTA": ("2TiB", "monthly-quota", "2TiB"),
    "DERP_QUOTA_STATE": ("/quota", "quota-state", "/quota"),
    "DERP_DRAIN_SECONDS": ("5s", "drain-seconds", 5.0),
    "DERP_HANDOVER_SOCKET": ("/run/s", "handover-socket", "/run/s"),
    "DERP_ACME_PROFILE": ("tlsserver", "acme-profile", "tlsserver"),
    "DERP_STUN_GENERIC": ("true", "stun-generic", True),
    "DERP_STUN_FOLLOWS_READINESS": ("true", "stun-follows-readiness", True),
    "DERP_CONFIG": ("/etc/derper.toml", "config", "/etc/derper.toml"),
    "DERP_CHECK_CONFIG": ("true", "check-config", True),
}
"""Every variable: a value as people write it, the flag it sets, and what to."""


def read(**environ: str) -> EnvironmentFlags:
    """What these variables say on a machine called :data:`MACHINE`."""
    return read_environment(environ, MACHINE)


class TableTests(SynchronousTestCase):
    """The table itself."""

    def test_each(self) -> None:
        """Each variable alone sets its flag, to a value of the flag's type, and is named for it."""
        for name, (text, flag, value) in TABLE.items():
            with self.subTest(name=name):
                got = read(**{name: text})
                self.assertEqual(got.given, {flag: value})
                self.assertIs(type(got.given[flag]), type(value))
                self.assertEqual(got.names, {flag: name})
                self.assertEqual(got.warnings, ())

    def test_complete(self) -> None:
        """Neither table has a variable that the other lacks, and every flag has one."""
        self.assertEqual({name: flag for name, (_, flag, _) in TABLE.items()}, VARIABLES)
        self.assertEqual(set(VARIABLES.values()), {flag.name for flag in FLAGS})

    def test_empty_is_unset(self) -> None:
        """Compose files leave variables empty; that says nothing, not even a family."""
        got = read_environment(dict.fromkeys([*TABLE, "DERP_NONSENSE"], ""), MACHINE)
        self.assertEqual(got, EnvironmentFlags())

    def test_defaults(self) -> None:
        """Each name selects the defaults of its image; what is ours goes with the first."""
        for name, (text, _, _) in TABLE.items():
            with self.subTest(name=name):
                defaults = DOMAIN_DEFAULTS if name.startswith("DERP_") else PLAIN_DEFAULTS
                self.assertEqual(read(**{name: text}).defaults, defaults)
        self.assertEqual(read().defaults, {})

    def test_mixed_families(self) -> None:
        """One prefixed name is enough for the first; who loses admission by that is told."""
        got = read(ADDR=":8443", DERP_MAX_CLIENTS="9")
        self.assertEqual(got.given, {"a": ":8443", "max-clients": 9})
        self.assertEqual(got.defaults, DOMAIN_DEFAULTS)
        self.assertIn("DERP_MAX_CLIENTS and ADDR are of two kinds", got.warnings[0])
        self.assertEqual(read(VERIFY_CLIENTS="true", DERP_MAX_CLIENTS="9").warnings, ())

    def test_own_family_avoids_the_images(self) -> None:
        """A flag that an image has a name for gets no second one."""
        images = {flag for name, flag in VARIABLES.items() if name not in OWN_FAMILY}
        self.assertEqual(images & set(OWN_FAMILY.values()), set())


class HostnameTests(SynchronousTestCase):
    """``HOSTNAME``, which is there whether anybody set it or not."""

    def test_of_the_machine(self) -> None:
        """A container's own name is no wish, and selects no family."""
        self.assertEqual(read(HOSTNAME=MACHINE.upper()), EnvironmentFlags())

    def test_beside_domain(self) -> None:
        """Never a contradiction to the real setting, which wins."""
        got = read(HOSTNAME="other.test", DERP_DOMAIN="a.test")
        self.assertEqual(got.given, {"hostname": "a.test"})
        self.assertEqual(got.names, {"hostname": "DERP_DOMAIN"})

    def test_beside_flag(self) -> None:
        """Nor does it count beside ``-hostname``."""
        environ = {"HOSTNAME": "other.test"}
        got = read_environment(environ, MACHINE, hostname_given=True)
        self.assertEqual(got, EnvironmentFlags())

    def test_set(self) -> None:
        """Otherwise it is the second family's setting."""
        got = read(HOSTNAME="203.0.113.7", DERP_DOMAIN="")
        self.assertEqual((got.given, got.defaults), ({"hostname": "203.0.113.7"}, PLAIN_DEFAULTS))


REFUSED: dict[str, dict[str, str]] = {
    'variable DERP_STUN: "maybe" is neither true nor false: write true': {"DERP_STUN": "maybe"},
    'variable RUN_DERP: "yes" is neither true nor false': {"RUN_DERP": "yes"},
    'variable STUN_PORT: "x" is not a whole number: write': {"STUN_PORT": "x"},
    'variable ACCEPT_CONNECTION_LIMIT: "lots" is not a number': {"ACCEPT_CONNECTION_LIMIT": "lots"},
    "variable TCP_USER_TIMEOUT: ": {"TCP_USER_TIMEOUT": "15"},
    "set enableServiceLinks to false": {"DERP_STUN_PORT": "udp://10.0.0.1:3478"},
    "variables DERP_ADDR and ADDR set the same": {"DERP_ADDR": ":443", "ADDR": ":8443"},
    "variables CERT_MODE and CERTMODE set the same": {"CERTMODE": "gcp", "CERT_MODE": "manual"},
    "DERP_VERIFY_CLIENT_URL_FAIL_OPEN and VERIFY_FAIL_OPEN set the same": {
        "DERP_VERIFY_CLIENT_URL_FAIL_OPEN": "true",
        "VERIFY_FAIL_OPEN": "false",
    },
}
"""Part of the sentence, and the variables that get it."""

FROM_KUBERNETES: dict[str, str] = {
    "DERP_PORT": "tcp://10.0.0.1:443",
    "DERP_SERVICE_HOST": "10.0.0.1",
    "DERP_SERVICE_PORT": "443",
    "DERP_SERVICE_PORT_HTTPS": "443",
    "DERP_PORT_443_TCP": "tcp://10.0.0.1:443",
    "DERP_PORT_443_TCP_ADDR": "10.0.0.1",
    "DERP_PORT_443_TCP_PORT": "443",
    "DERP_PORT_443_TCP_PROTO": "tcp",
    "DERP_EU_PORT": "tcp://10.0.0.2:443",
    "DERP_EU_SERVICE_PORT": "443",
    "DERP_EU_PORT_3478_UDP_PORT": "3478",
}


class SentenceTests(SynchronousTestCase):
    """What wrong, contradicting and unknown variables get."""

    def test_refused(self) -> None:
        """One sentence that names the variables."""
        for sentence, environ in REFUSED.items():
            with self.subTest(environ=environ):
                error = self.assertRaises(ConfigError, read_environment, environ, MACHINE)
                self.assertIn(sentence, str(error))
                self.assertNotIn("\n", str(error))

    def test_the_same_twice(self) -> None:
        """Two names with one meaning are no contradiction, however that is written."""
        got = read(DERP_STUN="t", RUN_STUN="true", CERTMODE="gcp", CERT_MODE="gcp")
        self.assertEqual(got.given, {"stun": True, "certmode": "gcp"})

    def test_unknown(self) -> None:
        """One warning each, with a guess what was meant; no family, no setting."""
        got = read(DERP_HOSTNAME="a.test", DERP_VERIFY_CLIENT="true", DERP_XYZZY="1", OTHER="2")
        self.assertEqual((got.given, got.defaults), ({}, {}))
        self.assertEqual(
            got.warnings,
            (
                "environment variable DERP_HOSTNAME is unknown and has no effect: did you mean "
                "DERP_DOMAIN?",
                "environment variable DERP_VERIFY_CLIENT is unknown and has no effect: did you "
                "mean DERP_VERIFY_CLIENTS?",
                "environment variable DERP_XYZZY is unknown and has no effect",
            ),
        )

    def test_not_for_us(self) -> None:
        """Derper's debug variables and what Kubernetes sets draw no warning and say nothing."""
        debug = {"DERP_DEBUG_LOGS": "true", "DERP_PROBER_DEBUG_LOGS": "1"}
        self.assertEqual(
            read_environment({**FROM_KUBERNETES, **debug}, MACHINE), EnvironmentFlags()
        )

    def test_not_from_kubernetes(self) -> None:
        """A name alone is no excuse: this value is somebody's mistake."""
        self.assertEqual(len(read(DERP_HTTPS_PORT="443").warnings), 1)

    @given(st.dictionaries(st.sampled_from(sorted(VARIABLES)), st.text(max_size=12), max_size=4))
    def test_anything(self, environ: Mapping[str, Any]) -> None:
        """Any value is read or refused with one printable line that names a variable."""
        try:
            read_environment(environ, MACHINE)
        except ConfigError as error:
            self.assertTrue(str(error).isprintable())
            self.assertTrue(any(name in str(error) for name in environ))
