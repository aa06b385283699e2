//! What use costs, and the least deposit.

use serde_json::{Value, json};

use super::{messages, with};
use privatix_domain::billing::Terms;
use privatix_domain::offering::parse_signed;
use privatix_domain::signed::Kind;

const MAX: u64 = (1 << 53) - 1;

pub(super) fn file() -> Value {
    json!({
        "about": "cost = min(deposit, setupPrice + floor(unitPrice * max(0, usage - freeUnits * unitSize) / unitSize)); \
                  least deposit = setupPrice + max(minUnits, billingInterval) * unitPrice. Products need 128 bits.",
        "costs": costs(),
        "leastDeposits": deposits(),
    })
}

fn terms(changes: &Value) -> Terms {
    Terms::from(&parse_signed(&offering(changes), None).expect("an offering"))
}

fn offering(changes: &Value) -> Value {
    with(Kind::Offering, &messages::of(Kind::Offering), changes, "agent")
}

fn costs() -> Vec<Value> {
    let plain = json!({"setupPrice": 100, "unitPrice": 7, "freeUnits": 0, "unitSize": 1024});
    let free = json!({"setupPrice": 0, "unitPrice": 7, "freeUnits": 3, "unitSize": 1024});
    let large = json!({
        "setupPrice": 0, "unitPrice": 1_000_000_000_u64, "freeUnits": 0, "unitSize": 1,
    });
    let wide = json!({"setupPrice": 1, "unitPrice": 1, "freeUnits": MAX, "unitSize": MAX});
    let nothing = json!({"setupPrice": 0, "unitPrice": 0, "freeUnits": 0, "unitSize": 1});
    let cases = [
        (&plain, 0, 1000),
        (&plain, 146, 1000),
        (&plain, 147, 1000),
        (&plain, 1023, 1000),
        (&plain, 1024, 1000),
        (&plain, 131_657, 1000),
        (&plain, MAX, 1000),
        (&plain, 1024, 50),
        (&free, 3 * 1024, 1000),
        (&free, 3 * 1024 + 146, 1000),
        (&free, 3 * 1024 + 147, 1000),
        (&free, 5 * 1024, 1000),
        (&large, MAX, MAX),
        (&large, 9_007_199, MAX),
        (&large, 9_007_200, MAX),
        (&wide, MAX, MAX),
        (&nothing, MAX, MAX),
    ];
    let made = |(terms_of, usage, deposit): (&Value, u64, u64)| {
        json!({
            "terms": terms_of, "usage": usage, "deposit": deposit,
            "cost": terms(terms_of).cost(usage, deposit),
        })
    };
    cases.into_iter().map(made).collect()
}

fn deposits() -> Vec<Value> {
    let cases = [
        json!({"setupPrice": 100, "unitPrice": 7, "minUnits": 100, "billingInterval": 10}),
        json!({"setupPrice": 0, "unitPrice": 7, "minUnits": 0, "billingInterval": 10}),
        json!({"setupPrice": 5, "unitPrice": 0, "minUnits": 100, "billingInterval": 10}),
        json!({"setupPrice": 0, "unitPrice": 0, "minUnits": 0, "billingInterval": 1}),
    ];
    let made = |terms: Value| {
        let offering = parse_signed(&offering(&terms), None).expect("an offering");
        json!({ "terms": terms, "leastDeposit": offering.min_deposit() })
    };
    cases.into_iter().map(made).collect()
}
