//! Money at the service: what becomes of cheques and accounts, who is looked at when, and that a
//! channel's usage is the sum of its sessions'.

use privatix_domain::code::Code;
use privatix_plugin_api::json;
use privatix_plugin_api::manifest::Role;
use privatix_plugin_api::message::{ClientKey, SessionId, Status};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::world::{MINE, World, identity, increment, total};
use crate::Caller;
use privatix_base::clock;
use privatix_domain::account::Account;
use privatix_domain::billing::Thresholds;
use privatix_domain::cheque::{Cheque, Receipt};
use privatix_domain::signed::{self, Kind};
use privatix_domain::status::Hold;
use privatix_store::{ChequeRow, NewSession};

const AGENT: u8 = 1;
const CLIENT: u8 = 2;

/// Ten smallest units a unit, at three each.
fn terms(changes: Value) -> Value {
    let mut terms = json!({ "unitSize": 10, "unitPrice": 3, "billingType": "postpaid" });
    for (name, value) in changes.as_object().expect("an object") {
        terms[name] = value.clone();
    }
    terms
}

async fn cheque(world: &World, channel: ClientKey, balance: u64, signer: u8) -> Value {
    let cheque = Cheque {
        agent: identity(AGENT).public().signing,
        client: identity(CLIENT).public().signing,
        channel,
        offering: world.row(channel).await.offering,
        balance,
    };
    signed::sign(Kind::Cheque, cheque, &identity(signer)).expect("signed")
}

async fn take(world: &World, cheque: &Value) -> String {
    match world.agent().cheque_received(cheque).await {
        Ok(receipt) => format!("{} {}", receipt["paid"], receipt["status"].as_str().expect("text")),
        Err(refused) => refused.code.to_string(),
    }
}

#[tokio::test]
async fn what_an_agent_does_with_cheques() {
    let world = World::new(Role::Agent).await;
    let terms = terms(json!({ "setupPrice": 5 }));
    let channel = world.priced(Status::Suspended, &[Hold::Payment], &terms, 60).await;
    for (balance, signer, said) in [
        (0, CLIENT, "StaleCheque"),
        (4, CLIENT, "4 suspended"),
        (10, AGENT, "BadChequeSignature"),
        (3, CLIENT, "StaleCheque"),
        (4, CLIENT, "4 suspended"),
        // What was waited for: the receipt says already that it goes on.
        (5, CLIENT, "5 activating"),
        (5, CLIENT, "5 activating"),
        (61, CLIENT, "AboveDeposit"),
        (60, CLIENT, "60 activating"),
        (59, CLIENT, "StaleCheque"),
    ] {
        let cheque = cheque(&world, channel, balance, signer).await;
        assert_eq!(take(&world, &cheque).await, said, "{balance} by {signer}");
    }
    assert_eq!(world.told(channel).await, "start");
    let kept = world.store.cheque_get(channel).await.expect("read").expect("a cheque");
    assert_eq!((kept.balance, kept.due), (60, None));

    let unknown = ClientKey(uuid::Uuid::new_v4());
    let mut foreign = cheque(&world, channel, 60, CLIENT).await;
    foreign["channel"] = json!(unknown);
    assert_eq!(take(&world, &foreign).await, "ChannelNotFound");
    for nonsense in [json!(null), json!([1]), json!({"channel": channel}), json!("cheque")] {
        assert_eq!(take(&world, &nonsense).await, "MalformedCheque", "{nonsense}");
    }
}

/// Where somebody asks for what the other side does, there is nothing to do it.
#[tokio::test]
async fn a_host_of_the_other_role_refuses_in_the_same_words() {
    for (role, text) in [
        (Role::Client, "only an agent does that (WrongRole)"),
        (Role::Agent, "only a client does that (WrongRole)"),
    ] {
        let world = World::new(role).await;
        let party = world.service.party();
        let refused = match role {
            Role::Client => party.agent().map(drop),
            Role::Agent => party.client().map(drop),
        };
        assert_eq!(refused.expect_err("the other role").to_string(), text);
    }
}

#[tokio::test]
async fn a_terminated_channel_takes_its_last_cheque() {
    let world = World::new(Role::Agent).await;
    let channel = world.priced(Status::Terminated, &[], &terms(json!({})), 60).await;
    let last = cheque(&world, channel, 7, CLIENT).await;
    assert_eq!(take(&world, &last).await, "7 terminated");
    assert_eq!(world.told(channel).await, "-");
}

#[tokio::test]
async fn a_receipt_is_the_agents_signed_account() {
    let world = World::new(Role::Agent).await;
    let channel = world.priced(Status::Active, &[], &terms(json!({})), 60).await;
    let session = world.start_session(channel).await;
    world.said(total(channel, session, 40)).await;
    let cheque = cheque(&world, channel, 12, CLIENT).await;
    let receipt = world.agent().cheque_received(&cheque).await.expect("a receipt");
    let agent = identity(AGENT).public().signing;
    signed::verify(Kind::Receipt, &receipt, &agent).expect("signed");
    let Receipt { cheque: of, account } = serde_json::from_value(receipt).expect("a receipt");
    assert_eq!(of, json::hash(&cheque).expect("a hash"));
    assert_eq!((account.usage, account.cost, account.paid), (40, 12, 12));
}

#[tokio::test]
async fn billing_again_changes_nothing() {
    let world = World::new(Role::Agent).await;
    let held = terms(json!({ "maxBillingUnitLag": 2 }));
    let channel = world.priced(Status::Active, &[], &held, 60).await;
    let session = world.start_session(channel).await;
    for (usage, state) in [(20, "active"), (23, "active"), (24, "suspending+payment")] {
        world.said(total(channel, session, usage)).await;
        for _ in 0..3 {
            world.bill_all(false).await;
        }
        assert_eq!(world.state(channel).await, state, "{usage}");
    }
    let since = world.row(channel).await.since;
    world.bill_all(true).await;
    assert_eq!((world.told(channel).await, world.row(channel).await.since), ("stop", since));
}

#[tokio::test]
async fn only_usage_that_matters_draws_attention() {
    let world = World::new(Role::Agent).await;
    let lagging = terms(json!({ "maxBillingUnitLag": 2 }));
    let free = json!({ "unitSize": 10, "unitPrice": 0 });
    for (terms, usage, drawn) in
        [(&lagging, 23, false), (&lagging, 24, true), (&free, 1_000_000, false)]
    {
        let channel = world.priced(Status::Active, &[], terms, 60).await;
        let session = world.start_session(channel).await;
        world.service.inner.attention.take();
        world.said(total(channel, session, usage)).await;
        let expected: &[ClientKey] = if drawn { &[channel] } else { &[] };
        assert_eq!(world.service.inner.attention.take(), expected, "{usage}");
    }
}

/// As those are that were made before there was money, or by a version with other rules.
#[tokio::test]
async fn an_alarm_that_is_wrong_is_put_right() {
    for (role, right) in [(Role::Agent, 24), (Role::Client, 0)] {
        let world = World::new(role).await;
        let lagging = terms(json!({ "maxBillingUnitLag": 2 }));
        let channel = world.priced(Status::Active, &[], &lagging, 60).await;
        for wrong in [None, Some(1_000)] {
            let mut txn = world.store.begin().await.expect("begun");
            let alarm = Thresholds { alarm: wrong, ..Thresholds::default() };
            txn.billing_set(channel, 0, alarm).await.expect("set");
            txn.commit().await.expect("committed");
            for _ in 0..2 {
                world.bill_all(false).await;
                let row = &world.store.billing_some(&[channel]).await.expect("read")[0];
                assert_eq!(
                    (row.paid, row.thresholds.alarm),
                    (0, Some(right)),
                    "{role:?} {wrong:?}"
                );
            }
        }
    }
}

/// Nothing was used, so that nothing keeps a channel from ending as one that is not.
#[tokio::test]
async fn a_report_of_no_use_is_no_use() {
    let world = World::new(Role::Agent).await;
    let channel = world.channel(Status::Active).await;
    let session = world.start_session(channel).await;
    let used_at = async || world.store.billing_some(&[channel]).await.expect("read")[0].used_at;
    for (sequence, amount, used) in [(1, 0, false), (2, 0, false), (3, 1, true)] {
        world.said(increment(channel, session, sequence, amount)).await;
        assert_eq!(used_at().await > 0, used, "{sequence}");
    }
}

/// However much a module reports, the channel can be read again.
#[tokio::test]
async fn a_channels_usage_ends_where_integers_do() {
    let world = World::new(Role::Agent).await;
    let channel = world.channel(Status::Active).await;
    let (mut sessions, most) = (Vec::new(), privatix_plugin_api::json::MAX_INTEGER);
    let mut txn = world.store.begin().await.expect("begun");
    for _ in 0..1_100 {
        let id = SessionId(uuid::Uuid::now_v7());
        let (client_address, client_port, started_at) = (None, None, clock::unix_now());
        let measured = false;
        let session = NewSession { id, channel, client_address, client_port, started_at, measured };
        txn.session_open(&session).await.expect("opened");
        txn.session_close(id, started_at).await.expect("closed");
        sessions.push(id);
    }
    txn.commit().await.expect("committed");
    let mut late = JoinSet::new();
    for session in sessions {
        let modules = world.service.modules();
        let caller = Caller { product: MINE, name: "test".into() };
        late.spawn(async move { modules.call(&caller, total(channel, session, most)).await });
    }
    assert!(late.join_all().await.iter().all(Result::is_ok), "late, many at once");
    for _ in 0..3 {
        let session = world.start_session(channel).await;
        assert_eq!(world.said(total(channel, session, most)).await, "active");
        assert_eq!(world.usage(channel).await, most);
    }
    assert_eq!(world.row(channel).await.id, channel);
}

/// However sessions are opened, reported for, closed and reported for late.
#[tokio::test]
async fn a_channels_usage_is_the_sum_of_its_sessions() {
    let world = World::new(Role::Agent).await;
    let channel = world.channel(Status::Active).await;
    let (mut sessions, mut seed) = (Vec::new(), 20_261_125u64);
    for step in 0..400 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (act, any) = ((seed >> 33) % 8, (seed >> 40) as usize);
        match act {
            0 => sessions.push(world.start_session(channel).await),
            1 if !sessions.is_empty() => {
                let session = sessions[any % sessions.len()];
                let mut txn = world.store.begin().await.expect("begun");
                txn.session_close(session, clock::unix_now()).await.expect("closed");
                txn.commit().await.expect("committed");
            }
            _ if !sessions.is_empty() => {
                let session = sessions[any % sessions.len()];
                world.said(total(channel, session, (seed >> 20) % 1_000 + step)).await;
            }
            _ => {}
        }
        let sum: u64 =
            world.sessions(channel).await.iter().map(|session| session.account.usage).sum();
        assert_eq!(world.usage(channel).await, sum, "step {step}");
    }
    assert!(sessions.len() > 10 && world.usage(channel).await > 1_000);
}

#[tokio::test]
async fn measured_sessions_count_time_that_somebody_measured() {
    let world = World::new(Role::Agent).await;
    let terms = terms(json!({ "unitType": "seconds", "unitSize": 1 }));
    let channel = world.priced(Status::Active, &[], &terms, 60).await;
    let session = world.start_session(channel).await;
    let started = world.sessions(channel).await[0].started_at;
    // What the module reports is acknowledged, and of no account; the clock may be set.
    assert_eq!(world.said(total(channel, session, 1_000_000)).await, "active");
    for (later, usage) in [(5, 5), (5, 5), (3, 5), (10, 12), (1_000, 22)] {
        let mut txn = world.store.begin().await.expect("begun");
        txn.session_mark(started + later).await.expect("marked");
        txn.commit().await.expect("committed");
        assert_eq!(world.usage(channel).await, usage, "{later} s later");
    }
    // The process is no more: the session ended at its last mark.
    world.restarted(|_| {}).upkeep().sessions_recovered().await.expect("ended");
    let ended = world.sessions(channel).await;
    assert_eq!((ended[0].stopped_at, ended[0].account.usage), (Some(started + 1_000), 22));
    assert_eq!(world.usage(channel).await, 22);
}

/// The client's channel with a cheque of 12 that is on its way.
async fn owing(world: &World) -> (ClientKey, ChequeRow) {
    let channel = world.priced(Status::Active, &[], &terms(json!({})), 60).await;
    let session = world.start_session(channel).await;
    world.said(total(channel, session, 40)).await;
    world.bill_all(false).await;
    let cheque = world.store.cheque_get(channel).await.expect("read").expect("a cheque");
    assert_eq!(cheque.balance, 12);
    (channel, cheque)
}

fn account(channel: ClientKey, changes: Value) -> Value {
    let account = Account {
        channel,
        status: Status::Active,
        holds: Vec::new(),
        usage: 40,
        cost: 12,
        paid: 12,
        serial: 1,
        time: clock::unix_now(),
        best_cheque: None,
    };
    let mut account = serde_json::to_value(account).expect("JSON");
    for (name, value) in changes.as_object().expect("an object") {
        account[name] = value.clone();
    }
    // The other party of a client's channel is identity 2.
    signed::sign(Kind::Account, account, &identity(2)).expect("signed")
}

#[tokio::test]
async fn a_cheque_is_sent_until_the_agent_has_signed_that_it_has_it() {
    let world = World::new(Role::Client).await;
    let (channel, cheque) = owing(&world).await;
    let due = async || {
        let cheque = world.store.cheque_get(channel).await.expect("read").expect("a cheque");
        cheque.due.is_some()
    };
    assert!(due().await);
    world.client().cheque_failed(&cheque, "no answer", false).await.expect("noted");
    let waits = world.store.cheque_get(channel).await.expect("read").expect("a cheque");
    assert_eq!((waits.attempts, waits.trouble.as_deref()), (1, Some("no answer")));
    assert!(waits.due.expect("a time") > clock::unix_now() - 1);
    let now = clock::unix_now();
    for (changes, outcome, still_due) in [
        (json!({ "paid": 11 }), "ok", true),
        (json!({ "paid": 12 }), "ok", false),
        // The agent has lost it, as one does that was restored from a copy.
        (json!({ "paid": 11 }), "ok", true),
        (json!({ "paid": 12 }), "ok", false),
        (json!({ "paid": 0, "time": now - 100 }), "StaleAccount", false),
        (json!({ "paid": 99, "cost": 99 }), "ok", false),
    ] {
        let message = account(channel, changes.clone());
        let taken = world.client().account_received(channel, &message).await;
        let said = taken.map_or_else(|refused| refused.code.to_string(), |_| "ok".into());
        assert_eq!((said.as_str(), due().await), (outcome, still_due), "{changes}");
    }
    let settled = world.store.cheque_get(channel).await.expect("read").expect("a cheque");
    assert_eq!((settled.attempts, settled.trouble), (0, None));
}

/// A client that was restored from an old copy: its agent holds a cheque of 405, it knows of 105.
#[tokio::test]
async fn a_forgotten_cheque_is_the_baseline_once_the_agent_shows_the_clients_signature() {
    for billing in ["postpaid", "prepaid"] {
        let world = World::new(Role::Client).await;
        let terms = json!({ "unitSize": 10, "unitPrice": 10, "billingType": billing,
            "setupPrice": 5, "billingInterval": 2 });
        let channel = world.priced(Status::Active, &[], &terms, 1000).await;
        let me = identity(AGENT).public().signing;
        let made = |channel, balance: u64, offering: &str, signer| {
            let cheque = Cheque {
                agent: identity(CLIENT).public().signing,
                client: me,
                channel,
                offering: offering.to_owned(),
                balance,
            };
            signed::sign(Kind::Cheque, cheque, &identity(signer)).expect("signed")
        };
        let offering = world.row(channel).await.offering;
        let mut txn = world.store.begin().await.expect("begun");
        let at_once = Thresholds { alarm: Some(0), ..Thresholds::default() };
        txn.billing_set(channel, 105, at_once).await.expect("set");
        txn.commit().await.expect("committed");
        let session = world.start_session(channel).await;
        world.call(total(channel, session, 100)).await.expect("reported");
        let view = async || world.operator().channel_view(channel).await.expect("a channel");
        // An agent that has counted 400 and shows no signature, or another's, or of something else.
        let other = made(ClientKey(uuid::Uuid::new_v4()), 405, &offering, AGENT);
        for (case, shown) in [
            ("nothing", Value::Null),
            ("its own signature", made(channel, 405, &offering, CLIENT)),
            ("of another channel", other),
            ("of another offering", made(channel, 405, "offering", AGENT)),
            ("above the deposit", made(channel, 1001, &offering, AGENT)),
            ("no cheque", json!({ "balance": 405 })),
        ] {
            let said = json!({ "usage": 400, "cost": 405, "paid": 405, "bestCheque": shown });
            world.client().account_received(channel, &account(channel, said)).await.expect("taken");
            let money = view().await.money.expect("money");
            assert_eq!(money.paid, 105, "{case}");
            assert!(money.dispute.is_some(), "{case}");
        }
        let shown = made(channel, 405, &offering, AGENT);
        let said = json!({ "usage": 400, "cost": 405, "paid": 405, "bestCheque": shown });
        world.client().account_received(channel, &account(channel, said)).await.expect("taken");
        let found = view().await;
        let money = found.money.expect("money");
        assert_eq!((money.paid, money.dispute, found.usage), (405, None, 400), "{billing}");
        let kept = world.store.cheque_get(channel).await.expect("read").expect("a cheque");
        assert_eq!((kept.balance, kept.due), (405, None), "the agent has it");
        // It goes on from there: thirty more are used and paid for.
        world.call(total(channel, session, 130)).await.expect("reported");
        let said = json!({ "usage": 430, "cost": 435, "paid": 405, "bestCheque": shown });
        world.client().account_received(channel, &account(channel, said)).await.expect("taken");
        world.bill_all(false).await;
        let money = view().await.money.expect("money");
        assert_eq!(money.dispute, None, "{billing}");
        assert!(money.paid >= 435, "{billing}: {}", money.paid);
        // What is shown again changes nothing, and what the agent says alone is no proof.
        let said = json!({ "usage": 900, "cost": 905, "paid": 405, "bestCheque": shown });
        world.client().account_received(channel, &account(channel, said)).await.expect("taken");
        let found = view().await;
        assert_eq!(found.usage, 430, "{billing}");
        assert!(found.money.expect("money").dispute.is_some(), "{billing}");
    }
}

#[tokio::test]
async fn an_agent_shows_the_best_cheque_of_its_client() {
    let world = World::new(Role::Agent).await;
    let channel = world.priced(Status::Active, &[], &terms(json!({})), 60).await;
    let shown = async || world.agent().account(channel).await.expect("an account");
    assert_eq!(shown().await.get("bestCheque"), None);
    for balance in [4, 10] {
        let best = cheque(&world, channel, balance, CLIENT).await;
        let receipt = world.agent().cheque_received(&best).await.expect("taken");
        assert_eq!(receipt.get("bestCheque"), None, "its client has just sent it");
        assert_eq!(shown().await["bestCheque"], best);
    }
}

/// Who is heard of again gets his cheque at once, but only if he was away: what he refuses is not
/// pressed on him.
#[tokio::test]
async fn an_agent_that_comes_back_is_paid_at_once() {
    let world = World::new(Role::Client).await;
    for (away, at_once) in [(true, true), (false, false)] {
        let (channel, cheque) = owing(&world).await;
        let read = async || world.store.cheque_get(channel).await.expect("read").expect("a cheque");
        for _ in 0..9 {
            world.client().cheque_failed(&cheque, "no answer", away).await.expect("noted");
        }
        let is_due = async || read().await.due.expect("unsent") <= clock::unix_now();
        assert!(!is_due().await);
        for _ in 0..2 {
            let message = account(channel, json!({ "paid": 0 }));
            world.client().account_received(channel, &message).await.expect("taken");
            assert_eq!((is_due().await, read().await.attempts), (at_once, 9), "{away}");
        }
        // And if he does not take it then, it is put off as before.
        world.client().cheque_failed(&cheque, "no receipt", false).await.expect("noted");
        let message = account(channel, json!({ "paid": 0 }));
        world.client().account_received(channel, &message).await.expect("taken");
        assert!(!is_due().await, "{away}");
    }
}

/// Nothing is put off for longer than five minutes; what seems to be, was when the clock was wrong.
#[tokio::test]
async fn a_clock_that_was_set_back_keeps_no_cheque() {
    let world = World::new(Role::Client).await;
    let (channel, mut cheque) = owing(&world).await;
    let other = identity(2).public().signing.to_string();
    for (seconds, not_to, due) in
        [(0, &[][..], true), (0, &[other.as_str()], false), (200, &[], false), (100_000, &[], true)]
    {
        cheque.due = Some(clock::unix_now() + seconds);
        let mut txn = world.store.begin().await.expect("begun");
        txn.cheque_put(&cheque).await.expect("kept");
        txn.commit().await.expect("committed");
        let found = world.client().cheques_due(not_to).await.expect("read");
        let found = found.iter().any(|found| found.cheque.channel == channel);
        assert_eq!(found, due, "in {seconds} s, {not_to:?}");
    }
}

#[tokio::test]
async fn only_the_agents_signed_end_ends_a_clients_side() {
    let world = World::new(Role::Client).await;
    for (changes, state) in [
        (json!({ "status": "suspended", "holds": ["payment"] }), "active"),
        (json!({ "status": "terminating" }), "terminating"),
        (json!({ "status": "terminated" }), "terminating"),
    ] {
        let (channel, _) = owing(&world).await;
        let message = account(channel, changes.clone());
        world.client().account_received(channel, &message).await.expect("taken");
        assert_eq!(world.state(channel).await, state, "{changes}");
    }
    let (channel, cheque) = owing(&world).await;
    let mut forged = account(channel, json!({ "status": "terminated" }));
    forged["paid"] = 13.into();
    let refused = world.client().account_received(channel, &forged).await.expect_err("forged");
    assert_eq!(refused.code, Code::BadAccountSignature);
    let refused = world.client().receipt_received(&cheque, &forged).await.expect_err("no receipt");
    assert_eq!(refused.code, Code::MalformedReceipt);
    assert_eq!(world.state(channel).await, "active");
}

#[tokio::test]
async fn a_client_signs_nothing_before_access_is_there_and_settles_at_the_end() {
    let world = World::new(Role::Client).await;
    let terms = terms(json!({ "setupPrice": 5 }));
    let waiting = world.priced(Status::Pending, &[], &terms, 60).await;
    let mut txn = world.store.begin().await.expect("begun");
    txn.channel_set_access(waiting, 0, None).await.expect("set");
    txn.commit().await.expect("committed");
    let ended = world.priced(Status::Terminated, &[], &terms, 60).await;
    world.bill_all(true).await;
    let paid =
        async |channel| world.store.cheque_get(channel).await.expect("read").map(|c| c.balance);
    assert_eq!((paid(waiting).await, paid(ended).await), (None, Some(5)));
}
