"""A stateful firewall for the network namespace of this process, set up through the kernel's nftables interface.

Images have no `nft` command, so this module builds the netlink messages. Names in comments are from
linux/netfilter/nf_tables.h.
"""

import ipaddress
import os
import socket
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from microjobs_orchestrator.local.guard.settings import RELAY_PORT, Settings

TABLE = "microjobs"

INPUT, OUTPUT = 1, 3
"""Hooks for packets: NF_INET_LOCAL_IN, NF_INET_LOCAL_OUT."""

LOOPBACK_INDEX = 1
"""Index of the interface `lo` in each network namespace."""

_NETLINK_NETFILTER = 12
_NFTABLES = 10  # NFNL_SUBSYS_NFTABLES
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_NEW_TABLE, _NEW_CHAIN, _NEW_RULE = (_NFTABLES << 8 | number for number in (0, 3, 6))
_REQUEST, _ACK, _CREATE = 0x1, 0x4, 0x400
_APPEND = 0x800
_INET = 1  # NFPROTO_INET: IPv4 and IPv6
_NESTED = 0x8000
_DROP, _ACCEPT = 0, 1
_REGISTER = 1
_REPLY_TIMEOUT = 5.0  # seconds

_NETWORK_HEADER, _TRANSPORT_HEADER = 1, 2  # NFT_PAYLOAD_…
_CONNECTION_STATE = 0  # NFT_CT_STATE
_IPV4 = 2  # NFPROTO_IPV4
_VERDICT_REGISTER = 0  # NFT_REG_VERDICT
_IIF, _OIF, _NFPROTO, _L4PROTO = 4, 5, 15, 16  # NFT_META_…
_ESTABLISHED_OR_RELATED = 0x2 | 0x4
_ICMPV6 = 58
_SOURCE_OFFSET, _DESTINATION_OFFSET = 12, 16  # of the addresses in an IPv4 header

Rule = bytes
"""The encoded expressions of a rule that accepts packets."""


@dataclass(frozen=True)
class Chain:
    """The rules of one hook. A packet that no rule accepts is dropped."""

    name: str
    hook: int
    rules: Sequence[Rule]


def make_chains(settings: Settings) -> list[Chain]:
    """Return the firewall of a host. Other machines and containers can connect only to the relay.

    The hosts of an isolated job can also connect to each other, but to nothing else.
    """
    input_rules = [match_loopback(_IIF), match_established()]
    output_rules = [match_loopback(_OIF), match_established()]
    if settings.target:
        input_rules.append(match_tcp_port(RELAY_PORT))
    if not settings.isolated:
        input_rules.append(_meta(_L4PROTO) + _equals(bytes([_ICMPV6])))  # IPv6 finds neighbours by ICMPv6
        return [Chain("input", INPUT, input_rules)]
    if settings.peers:
        input_rules.append(match_peers(_SOURCE_OFFSET, settings.peers))
        output_rules.append(match_peers(_DESTINATION_OFFSET, settings.peers))
    return [Chain("input", INPUT, input_rules), Chain("output", OUTPUT, output_rules)]


def match_loopback(interface_key: int) -> Rule:
    """Match packets of the loopback interface: received ones with the key _IIF, sent ones with the key _OIF."""
    return _meta(interface_key) + _equals(struct.pack("=I", LOOPBACK_INDEX))


def match_established() -> Rule:
    """Match packets of connections that exist already, and packets that belong to them, such as ICMP errors."""
    state = _expression("ct", _number(1, _REGISTER) + _number(2, _CONNECTION_STATE))
    return state + _mask(struct.pack("=I", _ESTABLISHED_OR_RELATED)) + _equals(bytes(4), negated=True)


def match_tcp_port(port: int) -> Rule:
    """Match TCP packets to a port."""
    destination = _payload(base=_TRANSPORT_HEADER, offset=2, length=2)
    return _meta(_L4PROTO) + _equals(bytes([socket.IPPROTO_TCP])) + destination + _equals(struct.pack(">H", port))


def match_peers(offset: int, gateway: str) -> Rule:
    """Match IPv4 packets whose source or destination (the address at `offset`) is in the gateway's network.

    The gateway itself does not match: on Podman, it is this machine.
    """
    parsed = ipaddress.IPv4Interface(gateway)
    address = _payload(base=_NETWORK_HEADER, offset=offset, length=4)
    is_not_gateway = address + _equals(parsed.packed, negated=True)
    is_inside = address + _mask(parsed.netmask.packed) + _equals(parsed.network.network_address.packed)
    return _meta(_NFPROTO) + _equals(bytes([_IPV4])) + is_not_gateway + is_inside


def install(chains: Iterable[Chain]) -> None:
    """Set up the firewall, completely or not at all.

    Raises:
        OSError: the kernel refuses the firewall.
    """
    messages = [_message(_NEW_TABLE, _CREATE | _ACK, _text(1, TABLE))]
    for chain in chains:
        hook = _attribute(4, _number(1, chain.hook) + _number(2, 0), nested=True)
        names = _text(1, TABLE) + _text(3, chain.name)
        messages.append(_message(_NEW_CHAIN, _CREATE | _ACK, names + hook + _number(5, _DROP) + _text(7, "filter")))
        messages += [_make_rule_message(chain, rule) for rule in chain.rules]
    begin, end = (
        _message(message_type, flags=0, family=0, resource=_NFTABLES) for message_type in (_BATCH_BEGIN, _BATCH_END)
    )
    _send([begin, *messages, end], acknowledgement_count=len(messages))


def _make_rule_message(chain: Chain, rule: Rule) -> bytes:
    code = _attribute(2, _number(1, _ACCEPT), nested=True)
    accept = _expression("immediate", _number(1, _VERDICT_REGISTER) + _attribute(2, code, nested=True))
    expressions = _attribute(4, rule + accept, nested=True)
    return _message(_NEW_RULE, _CREATE | _ACK | _APPEND, _text(1, TABLE) + _text(2, chain.name) + expressions)


def _send(messages: Sequence[bytes], acknowledgement_count: int) -> None:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as kernel:
        kernel.bind((0, 0))
        kernel.settimeout(_REPLY_TIMEOUT)
        kernel.send(b"".join(messages))
        while acknowledgement_count:
            acknowledgement_count -= _count_acknowledged(kernel.recv(1 << 16))


def _count_acknowledged(replies: bytes) -> int:
    """Return the number of messages that the kernel has acknowledged. Raise OSError for the first error."""
    count = 0
    while replies:
        size, _, _, _, _, error = struct.unpack_from("=IHHIIi", replies)
        if error:
            raise OSError(-error, os.strerror(-error))
        replies = replies[size + 3 & ~3 :]
        count += 1
    return count


# --- encoding: each function returns the bytes of one part of a netlink message ---
#
# The type of an attribute is a number in the enumeration of the part that contains the attribute. In a chain, for
# example, 1 is NFTA_CHAIN_TABLE, 3 is NFTA_CHAIN_NAME and 4 is NFTA_CHAIN_HOOK.


def _message(message_type: int, flags: int, attributes: bytes = b"", family: int = _INET, resource: int = 0) -> bytes:
    body = struct.pack(">BBH", family, 0, resource) + attributes
    return struct.pack("=IHHII", 16 + len(body), message_type, _REQUEST | flags, 0, 0) + body


def _attribute(attribute_type: int, value: bytes, *, nested: bool = False) -> bytes:
    header = struct.pack("=HH", 4 + len(value), attribute_type | (_NESTED if nested else 0))
    return header + value + bytes(-len(value) % 4)


def _number(attribute_type: int, value: int) -> bytes:
    return _attribute(attribute_type, struct.pack(">I", value))


def _text(attribute_type: int, value: str) -> bytes:
    return _attribute(attribute_type, value.encode() + b"\0")


def _expression(name: str, data: bytes) -> bytes:
    return _attribute(1, _text(1, name) + _attribute(2, data, nested=True), nested=True)


def _meta(key: int) -> bytes:
    return _expression("meta", _number(1, _REGISTER) + _number(2, key))


def _payload(*, base: int, offset: int, length: int) -> bytes:
    return _expression("payload", _number(1, _REGISTER) + _number(2, base) + _number(3, offset) + _number(4, length))


def _mask(mask: bytes) -> bytes:
    """Encode the bitwise AND of four bytes with a mask."""
    operands = _attribute(4, _attribute(1, mask), nested=True) + _attribute(5, _attribute(1, bytes(4)), nested=True)
    return _expression("bitwise", _number(1, _REGISTER) + _number(2, _REGISTER) + _number(3, 4) + operands)


def _equals(value: bytes, *, negated: bool = False) -> bytes:
    compared = _attribute(3, _attribute(1, value), nested=True)
    return _expression("cmp", _number(1, _REGISTER) + _number(2, int(negated)) + compared)
