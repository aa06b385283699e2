//! The spelling that existing adapters speak, call by call over a raw WebSocket.

use privatix_core::OfferingView;
use privatix_plugin_api::message::{ClientKey, Status};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::existing::Existing;
use crate::support::program::{Described, Refusal, Station, Trade, Wire};
use crate::support::{Database, Node, wait_for};

const DENIED: &str = "access denied (1236224)";
const NO_CHANNEL: &str = "channel not found (1236225)";
const BAD_PASSWORD: &str = "bad client password (1236226)";
const NON_ACTIVE: &str = "non-active channel (1236228)";
const NO_ENDPOINT: &str = "endpoint not found (1236230)";
const BAD_CONFIG: &str = "bad product config (1236231)";
const UNSUPPORTED: &str = "unsupported call (1236233)";

/// What a call is answered with: null, or code and text.
type Answer = Result<(), (i64, &'static str)>;

/// Calls with the product and its token first.
fn call(station: &Station, wire: &mut Wire, call: &str, more: &Value) -> Result<Value, Refusal> {
    let mut params = vec![json!(station.module.product()), json!(station.token)];
    params.extend(more.as_array().expect("an array").iter().cloned());
    wire.call(&format!("sess_{call}"), json!(params))
}

fn check(station: &Station, wire: &mut Wire, name: &str, more: Value, expected: Answer) {
    let outcome = call(station, wire, name, &more);
    let expected = expected.map(|()| Value::Null).map_err(|(code, message)| Refusal {
        code,
        message: message.to_owned(),
        name: None,
    });
    assert_eq!(outcome, expected, "{name} {more}");
}

fn command(node: &Node, channel: ClientKey, command: &str, then: Status) {
    post(node, channel, command);
    node.wait_channel(channel, then);
}

/// A command where somebody carries it out at once, so that no status on the way can be waited for.
fn post(node: &Node, channel: ClientKey, command: &str) {
    let path = format!("/v1/channels/{channel}/{command}");
    let _: Value = node.post(&path, &json!(null)).expect(command);
}

#[test]
fn every_call_of_an_agent_good_and_bad() {
    let station = Station::new("agent");
    let database = Database::of(&station.node);
    let [active, waiting, over] = [(); 3].map(|()| station.module.channel(&database));
    command(&station.node, over, "suspend", Status::Suspending);
    let mut wire = station.bare();
    let mut is = |name: &str, more: Value, expected: Answer| {
        check(&station, &mut wire, name, more, expected);
    };
    let refused = |text| Err((-32000, text));
    let unknown = Uuid::new_v4();

    is("setProductConfig", json!([{ "externalIP": "192.0.2.1", "key": "value" }]), Ok(()));
    is("setProductConfig", json!([{}]), refused(BAD_CONFIG));
    is("setProductConfig", json!([{ "": "value" }]), refused(BAD_CONFIG));
    is("setProductConfig", json!(["x"]), Err((-32602, "invalid params: invalid argument 2")));

    is("authClient", json!([active, "wrong"]), refused(BAD_PASSWORD));
    is("authClient", json!([unknown, "wrong"]), refused(NO_CHANNEL));
    is("serviceReady", json!([unknown]), refused(NO_CHANNEL));
    is("startSession", json!([unknown, "", 0]), refused(NO_CHANNEL));
    is("startSession", json!([over, "", 0]), refused(NON_ACTIVE));
    is("updateSession", json!([unknown, 1]), refused(NO_CHANNEL));
    is("stopSession", json!([unknown]), refused(NO_CHANNEL));
    is("getEndpoint", json!([active]), refused(UNSUPPORTED));

    // An activating channel may not be used yet, whatever else is the matter.
    is("updateSession", json!([active, 1]), refused(NON_ACTIVE));
    is("serviceReady", json!([active]), Ok(()));
    is("serviceReady", json!([active]), Ok(()));
    // So may one without a session: what it is told makes an adapter cut a client off.
    is("updateSession", json!([active, 1]), refused(NON_ACTIVE));
    is("stopSession", json!([active]), Ok(()));

    for (more, text) in [
        (json!([]), "invalid params: missing value for argument 2"),
        (json!([active]), "invalid params: missing value for argument 3"),
        (json!([active, ""]), "invalid params: missing value for argument 4"),
        (json!(["x", "", 0]), "invalid params: invalid argument 2"),
        (json!([active, "nowhere", 0]), "invalid params: invalid argument 3"),
        (json!([active, "", 65536]), "invalid params: invalid argument 4"),
        (json!([active, "", 0, 1]), "invalid params: too many arguments, want at most 5"),
    ] {
        is("startSession", more, Err((-32602, text)));
    }
    is("flyAway", json!([active]), Err((-32601, "the method sess_flyAway does not exist")));

    let offering = call(&station, &mut wire, "startSession", &json!([active, "192.0.2.7", 4711]));
    let offering = offering.expect("an offering");
    assert!(offering.is_object());
    assert_eq!(offering["credit"], 64 << 20, "a field of its own, in no other answer");
    let mut is = |name: &str, more: Value, expected: Answer| {
        check(&station, &mut wire, name, more, expected);
    };
    is("updateSession", json!([active, 100]), Ok(()));
    is("updateSession", json!([active, 250]), Ok(()));
    is("updateSession", json!([active, 249]), refused("usage went backwards (1236234)"));
    is("stopSession", json!([active]), Ok(()));
    is("stopSession", json!([active]), Ok(()));
    assert_eq!(database.sessions(active)[0].account.usage, 250);
    assert_eq!(
        station.node.channel(active).status,
        Status::Active,
        "a disconnect is no suspension"
    );
    assert_eq!(station.node.channel(waiting).status, Status::Activating);
}

#[test]
fn who_may_not() {
    let station = Station::new("agent");
    let channel = station.module.channel(&Database::of(&station.node));
    let other = Described::named("other");
    let mut wire = station.bare();
    let product = station.module.product();
    for (params, text) in [
        (json!([product, "wrong", channel]), DENIED),
        (json!([product, "", channel]), DENIED),
        (json!([other.product(), station.token, channel]), DENIED),
    ] {
        let refusal = wire.call("sess_serviceReady", params.clone()).expect_err("denied");
        assert_eq!((refusal.code, refusal.message.as_str()), (-32000, text), "{params}");
    }
    // Another product, with a token of its own, does not see the channel.
    other.drop_into(&station.node.plugins());
    station.node.wait_state("other", privatix_modules::registry::State::Running);
    let token = crate::support::program::token(&station.node, "other");
    let params = json!([other.product(), token, channel]);
    let refusal = wire.call("sess_serviceReady", params).expect_err("not its own");
    assert_eq!(refusal.message, NO_CHANNEL);
    let named = json!({ "product": product });
    let refusal = wire.call("sess_serviceReady", named).expect_err("an order, not names");
    assert_eq!(refusal.code, -32602);
    assert_eq!(station.node.channel(channel).status, Status::Activating);
}

/// An agent's adapter learns only from failures that a client's access is to end.
#[test]
fn an_adapter_cannot_go_on_serving_a_suspended_client() {
    let station = Station::new("agent");
    let database = Database::of(&station.node);
    let channel = station.module.channel(&database);
    let mut wire = station.bare();
    call(&station, &mut wire, "startSession", &json!([channel, "", 0])).expect("started");
    let mut is = |name: &str, more: Value, expected: Answer| {
        check(&station, &mut wire, name, more, expected);
    };
    let refused = |text| Err((-32000, text));
    is("updateSession", json!([channel, 100]), Ok(()));
    command(&station.node, channel, "suspend", Status::Suspending);
    // Saved, and refused; also what is no usage at all.
    is("updateSession", json!([channel, 300]), refused(NON_ACTIVE));
    is("updateSession", json!([channel, 200]), refused(NON_ACTIVE));
    assert_eq!(database.sessions(channel)[0].account.usage, 300);
    is("startSession", json!([channel, "", 0]), refused(NON_ACTIVE));
    is("authClient", json!([channel, "wrong"]), refused(BAD_PASSWORD));
    is("stopSession", json!([channel]), Ok(()));
    assert_eq!(station.node.channel(channel).status, Status::Suspended);
    // Its last report comes late, and counts.
    is("updateSession", json!([channel, 400]), refused(NON_ACTIVE));
    assert_eq!(database.sessions(channel)[0].account.usage, 400);
    is("updateSession", json!([channel, 1]), refused(NON_ACTIVE));
    is("stopSession", json!([channel]), Ok(()));
    command(&station.node, channel, "terminate", Status::Terminated);
    is("stopSession", json!([channel]), Ok(()));
    is("updateSession", json!([channel, 500]), refused(NON_ACTIVE));
    is("startSession", json!([channel, "", 0]), refused(NON_ACTIVE));
}

#[test]
fn a_clients_adapter_that_stops_waits_to_be_started_again() {
    let station = Station::new("client");
    let database = Database::of(&station.node);
    let channel = station.module.channel(&database);
    let mut wire = station.bare();
    let mut is = |name: &str, more: Value, expected: Answer| {
        check(&station, &mut wire, name, more, expected);
    };
    let refused = |text| Err((-32000, text));
    is("authClient", json!([channel, "x"]), refused(UNSUPPORTED));
    is("setProductConfig", json!([{ "a": "b" }]), refused(UNSUPPORTED));
    is("getEndpoint", json!([channel]), refused(NO_ENDPOINT));
    is("getEndpoint", json!([Uuid::new_v4()]), refused(NO_CHANNEL));
    is("stopSession", json!([channel]), Ok(()));
    is("updateSession", json!([channel, 1]), Ok(()));
    call(&station, &mut wire, "startSession", &json!([channel, "", 0])).expect("started");
    let mut is = |name: &str, more: Value, expected: Answer| {
        check(&station, &mut wire, name, more, expected);
    };
    is("updateSession", json!([channel, 100]), Ok(()));
    assert_eq!(station.node.channel(channel).status, Status::Active);
    is("stopSession", json!([channel]), Ok(()));
    let view = station.node.channel(channel);
    assert_eq!((view.status, view.holds), (Status::Suspended, vec!["user".to_owned()]));
    is("startSession", json!([channel, "", 0]), refused(NON_ACTIVE));
    command(&station.node, channel, "resume", Status::Activating);
    call(&station, &mut wire, "startSession", &json!([channel, "", 0])).expect("started again");
    // A report of a client's is taken in any status: nobody is served by it.
    command(&station.node, channel, "suspend", Status::Suspending);
    check(&station, &mut wire, "updateSession", json!([channel, 100]), Ok(()));
    check(&station, &mut wire, "stopSession", json!([channel]), Ok(()));
    assert_eq!(station.node.channel(channel).status, Status::Suspended);
}

#[test]
fn usage_since_the_last_report_is_added_up() {
    let module = Described::named("files").with("usageReporting", json!("incremental"));
    let station = Station::with("agent", module, "");
    let database = Database::of(&station.node);
    let channel = station.module.channel(&database);
    let mut wire = station.bare();
    call(&station, &mut wire, "startSession", &json!([channel, "", 0])).expect("started");
    for amount in [100, 0, 50] {
        check(&station, &mut wire, "updateSession", json!([channel, amount]), Ok(()));
    }
    assert_eq!(database.sessions(channel)[0].account.usage, 150);
}

#[test]
fn changes_of_channels_are_told_to_who_has_subscribed() {
    let station = Station::new("agent");
    let database = Database::of(&station.node);
    let product = station.module.product();
    let mut wire = station.bare();
    for (params, code) in [
        (json!([]), -32602),
        (json!(["newHeads", product, station.token]), -32602),
        (json!(["connChange", product]), -32602),
        (json!(["connChange", product, "wrong"]), -32000),
        (json!(["connChange", product, station.token, 1]), -32602),
    ] {
        let refusal = wire.call("sess_subscribe", params.clone()).expect_err("refused");
        assert_eq!(refusal.code, code, "{params}");
    }
    let subscribe = json!(["connChange", product, station.token]);
    let over_http = json!({
        "jsonrpc": "2.0", "id": 1, "method": "sess_subscribe", "params": subscribe,
    });
    let (_, body) = station.post(None, &over_http.to_string());
    assert_eq!(body["error"]["message"], UNSUPPORTED, "{body}");

    let channel = station.module.channel(&database);
    let id = wire.call("sess_subscribe", subscribe.clone()).expect("subscribed");
    let digits = id.as_str().and_then(|id| id.strip_prefix("0x")).expect("a hex id");
    assert!(digits.bytes().all(|digit| digit.is_ascii_hexdigit()), "{id}");
    let told = |wire: &mut Wire, id: &Value, command: &str| {
        let result = json!({ "channel": channel, "command": command });
        let params = wire.told("sess_subscription");
        assert_eq!(params, json!({ "subscription": id, "result": result }));
    };
    told(&mut wire, &id, "start");
    check(&station, &mut wire, "serviceReady", json!([channel]), Ok(()));
    station.node.wait_channel(channel, Status::Active);

    // A stop without a session is over as soon as it is told.
    command(&station.node, channel, "suspend", Status::Suspended);
    told(&mut wire, &id, "stop");
    command(&station.node, channel, "resume", Status::Activating);
    told(&mut wire, &id, "start");
    // With one, it waits for its end.
    call(&station, &mut wire, "startSession", &json!([channel, "", 0])).expect("started");
    command(&station.node, channel, "suspend", Status::Suspending);
    told(&mut wire, &id, "stop");
    assert_eq!(station.node.channel(channel).status, Status::Suspending);
    // Another command that means a stop, too, and is not told again.
    command(&station.node, channel, "resume", Status::Suspending);
    command(&station.node, channel, "suspend", Status::Suspending);
    check(&station, &mut wire, "stopSession", json!([channel]), Ok(()));
    station.node.wait_channel(channel, Status::Suspended);

    // One that comes back is told of every live channel, from another connection too.
    command(&station.node, channel, "resume", Status::Activating);
    let mut other = station.bare();
    let id = other.call("sess_subscribe", subscribe).expect("subscribed");
    told(&mut other, &id, "start");
    assert_eq!(wire.closed(), 4002);
    assert_eq!(other.call("sess_unsubscribe", json!([id])), Ok(json!(true)));
    station.node.wait("files", "not connected", |v| v.connection.is_some_and(|c| !c.connected));
}

#[test]
fn the_offering_and_the_endpoint_have_the_fields_that_adapters_know() {
    let pair = Trade::new();
    let offering: OfferingView =
        pair.agent.node.get(&format!("/v1/offerings/{}", pair.offering)).expect("the offering");
    let mut wire = pair.agent.bare();
    wait_for("the agent's channel", || {
        pair.agent
            .node
            .get::<Value>(&format!("/v1/channels/{}", pair.channel))
            .filter(|view| view["status"] == "activating")
    });
    let mut answer = call(&pair.agent, &mut wire, "startSession", &json!([pair.channel, "", 0]))
        .expect("an offering");
    let id: Uuid = answer["id"].take().as_str().expect("an id").parse().expect("a UUID");
    assert!(!id.is_nil());
    // A field that adapters of this spelling do not know, and pass over.
    let credit = answer.as_object_mut().and_then(|offering| offering.remove("credit"));
    assert!(credit.is_some_and(|credit| credit.is_u64()), "{answer}");
    let message = &offering.message;
    let expected = json!({
        "id": null, "isLocal": true, "ipType": "", "template": message["templateHash"],
        "product": message["product"], "hash": offering.hash, "status": "registered",
        "agent": message["agentPublicKey"], "serviceName": "test", "description": null,
        "country": "SE", "supply": 3, "currentSupply": 2, "unitName": "MiB", "unitType": "units",
        "billingType": "postpaid", "setupPrice": 0, "unitPrice": 0, "minUnits": 0,
        "maxUnit": 9, "billingInterval": 1, "maxBillingUnitLag": 2, "maxSuspendTime": null,
        "maxInactiveTimeSec": null, "freeUnits": 0, "additionalParams": {},
    });
    assert_eq!(answer, expected);

    let mut wire = pair.client.bare();
    let endpoint = wait_for("the endpoint", || {
        call(&pair.client, &mut wire, "getEndpoint", &json!([pair.channel])).ok()
    });
    let names: Vec<_> = endpoint.as_object().expect("an object").keys().cloned().collect();
    let mut expected = [
        "id",
        "template",
        "channel",
        "hash",
        "RawMsg",
        "paymentReceiverAddress",
        "serviceEndpointAddress",
        "username",
        "password",
        "additionalParams",
        "countryStatus",
    ];
    expected.sort_unstable();
    let mut names: Vec<&str> = names.iter().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, expected);
    assert_eq!(endpoint["channel"], json!(pair.channel));
    assert_eq!(endpoint["username"], json!(pair.channel));
    // The base64 of {"address":"192.0.2.1:1"}.
    assert_eq!(endpoint["additionalParams"], "eyJhZGRyZXNzIjoiMTkyLjAuMi4xOjEifQ==");
    // The password is the one that the agent's side takes.
    let mut wire = pair.agent.bare();
    let login = json!([pair.channel, endpoint["password"]]);
    check(&pair.agent, &mut wire, "authClient", login, Ok(()));
}

/// All that an operator and bad days do, with an adapter on either side that takes any error which it
/// does not know for the end.
#[test]
fn existing_adapters_meet_no_error_that_they_do_not_know() {
    for role in ["agent", "client"] {
        let mut station = Station::new(role);
        let channel = station.module.channel(&Database::of(&station.node));
        let mut adapter = Existing::of(&station, channel);
        let served = |station: &Station, adapter: &Existing| {
            adapter.wait_up(true);
            station.node.wait_channel(channel, Status::Active);
            adapter.is_well();
        };
        served(&station, &adapter);

        // Held and released before the adapter has cleaned up: the start is lost, and told again.
        command(&station.node, channel, "suspend", Status::Suspended);
        adapter.wait_up(false);
        post(&station.node, channel, "resume");
        served(&station, &adapter);
        assert!(adapter.lost() >= 1, "{role}");
        assert_eq!(adapter.stops(), 1, "{role}");

        // Faster than anybody reports.
        for word in ["suspend", "resume"] {
            post(&station.node, channel, word);
        }
        wait_for("a stop", || (adapter.stops() == 2).then_some(()));
        served(&station, &adapter);

        // Its channel is active all the time: that it is back shows at its connection.
        let back = |station: &Station, adapter: &Existing| {
            station.node.wait("files", "connected", |view| {
                view.connection.is_some_and(|connection| connection.connected)
            });
            served(station, adapter);
        };
        station.node.kill();
        station.node.start();
        back(&station, &adapter);
        assert!(station.node.stop().success());
        station.node.start();
        back(&station, &adapter);
        drop(adapter);
        adapter = Existing::of(&station, channel);
        served(&station, &adapter);

        // By itself: a disconnect at the agent's, a suspension at the client's; nothing is told back.
        adapter.leave();
        adapter.wait_up(false);
        if role == "client" {
            station.node.wait_channel(channel, Status::Suspended);
            assert_eq!(adapter.stops(), 0, "not told back");
            post(&station.node, channel, "resume");
            served(&station, &adapter);
        }
        let stops = adapter.stops();
        command(&station.node, channel, "terminate", Status::Terminated);
        adapter.wait_up(false);
        wait_for("a stop", || (adapter.stops() == stops + 1).then_some(()));
        adapter.is_well();
        assert!(!station.node.log().contains("forced:"), "{role}");
    }
}

/// Suspended and resumed between two reports of an agent's adapter, whose tunnel stays up.
#[test]
fn a_tunnel_that_nobody_meters_is_cut_off() {
    let station = Station::new("agent");
    let database = Database::of(&station.node);
    let channel = station.module.channel(&database);
    let product = station.module.product();
    let mut wire = station.bare();
    let mut told = station.bare();
    told.call("sess_subscribe", json!(["connChange", product, station.token])).expect("subscribed");
    call(&station, &mut wire, "startSession", &json!([channel, "", 0])).expect("started");
    check(&station, &mut wire, "updateSession", json!([channel, 100]), Ok(()));
    for word in ["suspend", "resume"] {
        post(&station.node, channel, word);
    }
    check(&station, &mut wire, "stopSession", json!([channel]), Ok(()));
    check(&station, &mut wire, "serviceReady", json!([channel]), Ok(()));
    station.node.wait_channel(channel, Status::Active);
    let refused = || Err((-32000, NON_ACTIVE));
    for used in [20 << 20, 21 << 20] {
        check(&station, &mut wire, "updateSession", json!([channel, used]), refused());
        assert_eq!(database.sessions(channel)[0].account.usage, used);
    }
}

/// One product for selling and another for buying, as adapters have it whose sides are two programs:
/// what they have in common is their templates.
#[test]
fn the_two_sides_may_be_two_products() {
    let pair = Trade::of(Described::named("files"), Described::named("finder"));
    assert_ne!(pair.agent.module.product(), pair.client.module.product());
    let adapters = [&pair.agent, &pair.client].map(|side| Existing::of(side, pair.channel));
    let nodes = [&pair.agent.node, &pair.client.node];
    for (node, adapter) in nodes.iter().zip(&adapters) {
        node.wait_channel(pair.channel, Status::Active);
        adapter.wait_up(true);
    }
    let mut wire = pair.client.bare();
    let endpoint = call(&pair.client, &mut wire, "getEndpoint", &json!([pair.channel]));
    assert_eq!(endpoint.expect("an endpoint")["username"], json!(pair.channel));
    for node in nodes {
        wait_for("usage", || (node.channel(pair.channel).usage > 0).then_some(()));
    }
    command(&pair.client.node, pair.channel, "suspend", Status::Suspended);
    adapters[1].wait_up(false);
    command(&pair.client.node, pair.channel, "resume", Status::Active);
    for node in nodes {
        node.wait_channel(pair.channel, Status::Active);
    }
    command(&pair.client.node, pair.channel, "terminate", Status::Terminated);
    pair.agent.node.wait_channel(pair.channel, Status::Terminated);
    for adapter in &adapters {
        adapter.wait_up(false);
        adapter.is_well();
    }
}
