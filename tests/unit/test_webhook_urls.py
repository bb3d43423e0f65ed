from ipaddress import IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pi_voice.domain.errors import InvalidRequest
from pi_voice.domain.webhook_urls import UrlPolicy, check_url, is_public

PUBLIC = UrlPolicy()
LOCAL = UrlPolicy(allows_loopback=True)

GOOD = [
    "https://hooks.example.com",
    "https://hooks.example.com/",
    "HTTPS://Hooks.Example.COM/pi-voice",
    "https://hooks.example.com:443/a/b/c",
    "https://hooks.example.com:8443/a?b=c&d=%20",
    "https://example.com?token=a@b",
    "https://example.com/a@b:c",
    "https://example.com/~user/(a),b;c=[d]",
    "https://a-b.c-d.example.co.uk/x",
    "https://xn--bcher-kva.example.com/",
    "https://1.example.com/",
    "https://0x7f.example.com/",
    "https://8.8.8.8/hook",
    "https://9.255.255.255:8443",
    "https://[2606:4700:4700::1111]/hook",
    "https://[2a00:1450:4001:0830:0000:0000:0000:200e]:8443/hook",
    "https://" + ".".join(["a" * 63] * 3) + ".example.com/",
    "https://example.com/" + "a" * 2028,
]

NOT_PUBLIC = [
    # IPv4: loopback, private, link-local and metadata, shared, benchmarks, documentation, multicast, reserved
    "https://127.0.0.1/",
    "https://127.0.0.1:8443/",
    "https://127.255.255.254/",
    "https://0.0.0.0/",
    "https://0.1.2.3/",
    "https://10.0.0.1/",
    "https://10.255.255.255/",
    "https://100.64.0.1/",
    "https://100.100.100.200/latest/meta-data",
    "https://100.127.255.255/",
    "https://168.63.129.16/",
    "https://169.254.169.254/latest/meta-data/",
    "https://169.254.170.2/v2/credentials",
    "https://172.16.0.1/",
    "https://172.31.255.255/",
    "https://192.0.0.1/",
    "https://192.0.2.1/",
    "https://192.88.99.1/",
    "https://192.168.1.1/",
    "https://198.18.0.1/",
    "https://198.19.255.255/",
    "https://198.51.100.7/",
    "https://203.0.113.9/",
    "https://224.0.0.1/",
    "https://239.255.255.250/",
    "https://240.0.0.1/",
    "https://255.255.255.255/",
    # IPv6
    "https://[::]/",
    "https://[::1]/",
    "https://[0:0:0:0:0:0:0:1]/",
    "https://[::127.0.0.1]/",
    "https://[::ffff:127.0.0.1]/",
    "https://[::ffff:7f00:1]/",
    "https://[::ffff:8.8.8.8]/",
    "https://[::ffff:0:127.0.0.1]/",
    "https://[64:ff9b::7f00:1]/",
    "https://[64:ff9b::169.254.169.254]/",
    "https://[64:ff9b:1::a9fe:a9fe]/",
    "https://[100::1]/",
    "https://[2001::1]/",
    "https://[2001:0:7f00:1::]/",
    "https://[2001:2::1]/",
    "https://[2001:10::1]/",
    "https://[2001:db8::1]/",
    "https://[2002:7f00:1::]/",
    "https://[2002:a9fe:a9fe::1]/",
    "https://[3fff::1]/",
    "https://[5f00::1]/",
    "https://[fc00::1]/",
    "https://[fd00:ec2::254]/",
    "https://[fe80::1]/",
    "https://[fec0::1]/",
    "https://[ff02::1]/",
]

UNUSUAL = [
    # Decimal, octal, hexadecimal and short notations of addresses, also of public ones
    "https://2130706433/",
    "https://134744072/",
    "https://0/",
    "https://017700000001/",
    "https://0x7f000001/",
    "https://0X7F000001/",
    "https://127.1/",
    "https://127.0.1/",
    "https://8.8.8/",
    "https://0177.0.0.1/",
    "https://0x7f.0.0.1/",
    "https://127.0.0.0x1/",
    "https://127.0.0.01/",
    "https://256.256.256.256/",
    "https://1.2.3.4.5/",
    "https://example.0x/",
    "https://example.1/",
    "https://127.0.0.1./",
    "https://127.1./",
]

NO_HOST_NAME = [
    "https://example.com./",
    "https://example..com/",
    "https://.example.com/",
    "https://-a.example.com/",
    "https://a-.example.com/",
    "https://" + "a" * 64 + ".example.com/",
    "https://" + ".".join(["a" * 63] * 4) + ".com/",
]

LOCAL_NAMES = [
    "https://localhost/",
    "https://LOCALHOST:8443/",
    "https://a.localhost/",
    "https://intranet/",
    "https://metadata/",
    "https://metadata.google.internal/",
    "https://printer.local/",
    "https://box.localdomain/",
    "https://router.home.arpa/",
]

NOT_VALID = [
    "https:///path",
    "https://",
    "https://:443/",
    "https://example.com:/",
    "https://example.com:443443/",
    "https://example.com:+443/",
    "https://%31%32%37.0.0.1/",
    "https://ex%61mple.com/",
    "https://example.com%00.a.com/",
    "https://exa_mple.com/",
    "https://example.com,a.com/",
    "https://example.com;a.com/",
    "https://[fe80::1%25eth0]/",
    "https://[2606:4700:4700::1111%eth0]/",
    "https://[2606:4700:4700::1111/",
    "https://2606:4700:4700::1111/",
    "https://[8.8.8.8]a/",
    "https://[v1.fe80]/",
    "https://example.com\\@127.0.0.1/",
    "https://example.com/\\..\\",
    "https://127.0.0.1\\.example.com/",
    "https://////127.0.0.1/",
]

NOT_ASCII = [
    "https://bücher.example.com/",
    "https://127。0。0。1/",
    "https://\uff11\uff12\uff17.0.0.1/",
    "https://\u2460\u2461\u2466.0.0.1/",
    "https://ex\u00adample.com/",
    "https://example.com/é",
    "https://example.com/a b",
    "https://example.com:4 43/",
    " https://example.com/",
    "https://example.com/\n",
    "https://exam\tple.com/",
    "https://example.com/\r\nHost: a",
    "https://example.com\x00/",
    "",
]

CREDENTIALS = [
    "https://user@example.com/",
    "https://user:password@example.com/",
    "https://example.com@127.0.0.1/",
    "https://@example.com/",
    "https://example.com%2f@a",
    "https://example.com:443@127.0.0.1:8443/",
]

NO_HTTPS = [
    "http://example.com/",
    "http://localhost/",
    "ftp://example.com/",
    "file:///etc/passwd",
    "gopher://127.0.0.1:6379/_",
    "javascript:alert(1)",
    "//example.com/",
    "example.com",
    "https:example.com",
    "https:/example.com",
    "https//example.com",
]

PORTS = [f"https://example.com:{port}/" for port in (0, 22, 80, 8080, 9001, 65_535, 65_536, 99_999)]

FRAGMENTS = ["https://example.com/#a", "https://example.com#", "https://127.0.0.1#@example.com/"]

BAD = {
    "not public": NOT_PUBLIC,
    "unusual notation": UNUSUAL,
    "no host name": NO_HOST_NAME,
    "local network": LOCAL_NAMES,
    "not a valid URL": NOT_VALID,
    "outside of ASCII": NOT_ASCII,
    "user name": CREDENTIALS,
    "https://.": NO_HTTPS,
    "port": PORTS,
    "fragment": FRAGMENTS,
    "2,048": ["https://example.com/" + "a" * 2029],
}


def refusal(url: str, policy: UrlPolicy = PUBLIC) -> str:
    """Return why a URL is refused."""
    with pytest.raises(InvalidRequest) as caught:
        check_url(url, policy)
    assert caught.value.code == "invalid_request"
    [detail] = caught.value.details
    assert detail.path == "url"
    return detail.message


@pytest.mark.parametrize("url", GOOD)
def test_a_public_https_url_is_accepted(url: str) -> None:
    check_url(url, PUBLIC)
    check_url(url, LOCAL)


@pytest.mark.parametrize(("reason", "url"), [(reason, url) for reason, urls in BAD.items() for url in urls])
def test_any_other_url_is_refused_with_its_reason(reason: str, url: str) -> None:
    assert reason in refusal(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost/",
        "http://localhost:9000/hook",
        "http://127.0.0.1:9000/hook",
        "http://127.9.9.9",
        "http://[::1]:1/",
        "https://localhost:9000",
        "https://127.0.0.1:65535/",
    ],
)
def test_a_policy_for_one_machine_accepts_loopback_by_http_on_any_port(url: str) -> None:
    check_url(url, LOCAL)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/",
        "http://8.8.8.8/",
        "https://10.0.0.1/",
        "https://169.254.169.254/",
        "https://[::ffff:127.0.0.1]/",
        "http://127.1/",
        "http://2130706433/",
        "http://localhost.:9000/",
        "http://a.localhost/",
        "http://localhost:0/",
        "http://localhost:65536/",
        "http://user@localhost/",
        "https://example.com:9000/",
    ],
)
def test_a_policy_for_one_machine_refuses_everything_else_as_before(url: str) -> None:
    refusal(url, LOCAL)


def test_a_deployment_names_its_ports_in_the_refusal() -> None:
    policy = UrlPolicy(ports=frozenset({9443, 443}))

    check_url("https://example.com:9443/", policy)
    assert "443, 9443" in refusal("https://example.com:8443/", policy)


def test_a_deployment_may_list_the_hosts_that_it_sends_to() -> None:
    policy = UrlPolicy(hosts=("hooks.example.com", "*.example.org", "8.8.8.8"))

    for url in ("https://HOOKS.example.com/", "https://a.example.org", "https://a.b.example.org/", "https://8.8.8.8/"):
        check_url(url, policy)
    for url in ("https://example.com/", "https://a.hooks.example.com/", "https://example.org/", "https://9.9.9.9/"):
        assert "Ask your operator" in refusal(url, policy)
    for url in ("https://badexample.org/", "https://hooks.example.com.evil.com/"):
        assert "Ask your operator" in refusal(url, policy)


def test_a_listed_host_is_not_accepted_if_it_is_local() -> None:
    assert "local network" in refusal("https://localhost/", UrlPolicy(hosts=("localhost",)))


@pytest.mark.parametrize("text", ["", "example.com", "8.8.8.8 ", "8.8.8", "08.8.8.8", "fe80::1%eth0", "2606::1%1"])
def test_a_text_that_is_no_plain_address_is_not_public(text: str) -> None:
    assert not is_public(text)


@given(st.ip_addresses(v=4))
def test_no_ipv4_address_that_python_calls_private_or_reserved_is_public(address: object) -> None:
    parsed = ip_address(str(address))
    if is_public(str(address)):
        assert parsed.is_global
        kinds = (parsed.is_multicast, parsed.is_reserved, parsed.is_unspecified, parsed.is_loopback)
        assert not any(kinds)


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_inside_of_an_ipv6_address_is_never_public(address: object) -> None:
    number = int(ip_address(str(address)))
    for prefix, shift in (
        ("::", 0),
        ("::ffff:0:0", 0),
        ("::ffff:0:0:0", 0),
        ("64:ff9b::", 0),
        ("64:ff9b:1::", 0),
        ("2002::", 80),
        ("2001::", 64),
        ("2001::", 0),
    ):
        embedded = IPv6Address(int(IPv6Address(prefix)) | number << shift)
        assert not is_public(embedded)


@given(st.ip_addresses(v=6))
def test_a_public_ipv6_address_is_global_unicast(address: object) -> None:
    parsed = ip_address(str(address))
    if is_public(str(address)):
        assert parsed in ip_network("2000::/3")
        assert parsed.is_global


def test_loopback_is_permitted_to_connect_to_only_by_a_policy_for_one_machine() -> None:
    for address in ("127.0.0.1", "127.1.2.3", "::1"):
        assert LOCAL.permits(address)
        assert not PUBLIC.permits(address)
    for address in ("::ffff:127.0.0.1", "10.0.0.1", "169.254.169.254", "fe80::1", "localhost"):
        assert not LOCAL.permits(address)
    assert PUBLIC.permits("8.8.8.8")
