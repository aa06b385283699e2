//! Identities, fingerprints, passwords, and keys that nobody may have.

use serde_json::{Value, json};

use super::{CHANNEL, OTHER_CHANNEL, base64url as text};
use crate::parties::{self, digest};
use privatix_domain::identity::{PublicKey, SealingKey};

pub(super) fn file() -> Value {
    json!({
        "about": "Parties with their secrets (hex), which the other files name. An identity file is \
                  what `init --export` writes. A fingerprint is the SHA-256 of the 32 bytes of the \
                  signing key.",
        "parties": parties::NAMES.map(parties::vector),
        "passwords": passwords(),
        "refusedSigningKeys": signing_keys(),
        "refusedSealingKeys": sealing_keys(),
    })
}

fn passwords() -> Vec<Value> {
    let order = privatix_plugin_api::json::hex(&digest("an order"));
    let made = |channel: &str| {
        let id = channel.parse().expect("a UUID");
        let password = parties::identity("agent").password(id, &order);
        json!({ "agent": "agent", "channel": channel, "order": order, "password": password })
    };
    [CHANNEL, OTHER_CHANNEL].map(made).to_vec()
}

/// 32 zero bytes with some others at places.
fn bytes(others: &[(usize, u8)], rest: u8) -> [u8; 32] {
    let mut bytes = [rest; 32];
    for (at, byte) in others {
        bytes[*at] = *byte;
    }
    bytes
}

/// All but the last byte of the points of order 8.
const ORDER_8: [u8; 31] = [
    0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0,
    0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc,
];
const OTHER_ORDER_8: [u8; 31] = [
    0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f,
    0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03,
];

fn signing_keys() -> Vec<Value> {
    let good = parties::identity("agent").public().signing.to_string();
    let refused = [
        ("small order: the neutral element", text(bytes(&[(0, 1)], 0))),
        ("small order: y = 0", text(bytes(&[], 0))),
        ("small order: y = 0, the other x", text(bytes(&[(31, 0x80)], 0))),
        ("small order: y = -1", text(bytes(&[(0, 0xec), (31, 0x7f)], 0xff))),
        ("small order: 8", text([&ORDER_8[..], &[0x05]].concat())),
        ("small order: 8, the other x", text([&ORDER_8[..], &[0x85]].concat())),
        ("small order: 8, the other y", text([&OTHER_ORDER_8[..], &[0x7a]].concat())),
        ("small order: 8, the other of both", text([&OTHER_ORDER_8[..], &[0xfa]].concat())),
        ("small order, written as p + 1", text(bytes(&[(0, 0xee), (31, 0x7f)], 0xff))),
        ("small order, written as p", text(bytes(&[(0, 0xed), (31, 0x7f)], 0xff))),
        ("no point of the curve", text(bytes(&[(0, 2)], 0))),
        ("31 bytes", text([7; 31])),
        ("33 bytes", text([7; 33])),
        ("padding", format!("{good}=")),
        ("the other alphabet", format!("+{}", &good[1..])),
        ("bits that are left over are set", format!("{}B", &good[..42])),
        ("hexadecimal", privatix_plugin_api::json::hex(&bytes(&[], 7))),
    ];
    let made = |(why, key): (&str, String)| {
        assert!(key.parse::<PublicKey>().is_err(), "{why}");
        json!({ "why": why, "key": key })
    };
    refused.map(made).to_vec()
}

fn sealing_keys() -> Vec<Value> {
    let refused = [
        ("small order: 0", text(bytes(&[], 0))),
        ("small order: 1", text(bytes(&[(0, 1)], 0))),
        ("small order: p - 1", text(bytes(&[(0, 0xec), (31, 0x7f)], 0xff))),
        ("31 bytes", text([7; 31])),
    ];
    let made = |(why, key): (&str, String)| {
        assert!(key.parse::<SealingKey>().is_err(), "{why}");
        json!({ "why": why, "key": key })
    };
    refused.map(made).to_vec()
}
