use super::*;

const KEY: &str = "6f1c1f0e-3b5c-4c5e-8f7a-0c1d2e3f4a5b";

fn key() -> ClientKey {
    KEY.parse().expect("a UUID")
}

/// The message in words of the wire, and back.
fn check<T: Serialize + DeserializeOwned + PartialEq + fmt::Debug>(message: &T, wire: &str) {
    let wire = wire.replace("KEY", KEY);
    let text = String::from_utf8(encode(message)).expect("UTF-8");
    assert_eq!(text, wire);
    assert_eq!(decode::<T>(wire.as_bytes()).expect("readable"), *message);
}

#[test]
fn messages_to_the_core() {
    let client_key = key();
    let session = SessionId(client_key.0);
    for (message, wire) in [
        (
            CoreRequest::AuthClient { client_key, password: Password("p".into()) },
            r#"{"call":"authClient","clientKey":"KEY","password":"p"}"#,
        ),
        (
            CoreRequest::SetProductConfig { config: [("a".into(), "b".into())].into() },
            r#"{"call":"setProductConfig","config":{"a":"b"}}"#,
        ),
        (CoreRequest::GetAccess { client_key }, r#"{"call":"getAccess","clientKey":"KEY"}"#),
        (CoreRequest::ServiceReady { client_key }, r#"{"call":"serviceReady","clientKey":"KEY"}"#),
        (
            CoreRequest::StartSession { client_key, client_address: None, client_port: None },
            r#"{"call":"startSession","clientKey":"KEY"}"#,
        ),
        (
            CoreRequest::StartSession {
                client_key,
                client_address: Some(IpAddr::from([192, 0, 2, 1])),
                client_port: Some(1194),
            },
            r#"{"call":"startSession","clientKey":"KEY","clientAddress":"192.0.2.1","clientPort":1194}"#,
        ),
        (
            CoreRequest::UpdateSession { client_key, session, usage: Usage::Total(7) },
            r#"{"call":"updateSession","clientKey":"KEY","session":"KEY","usage":{"total":7}}"#,
        ),
        (
            CoreRequest::UpdateSession {
                client_key,
                session,
                usage: Usage::Incremental { sequence: 2, amount: 7 },
            },
            r#"{"call":"updateSession","clientKey":"KEY","session":"KEY","usage":{"incremental":{"sequence":2,"amount":7}}}"#,
        ),
        (
            CoreRequest::StopSession { client_key, session },
            r#"{"call":"stopSession","clientKey":"KEY","session":"KEY"}"#,
        ),
    ] {
        check(&message, wire);
    }
}

#[test]
fn messages_to_the_module_and_their_answers() {
    let client_key = key();
    for (message, wire) in [
        (
            ModuleRequest::Configure { config: serde_json::json!({"port": 1}) },
            r#"{"call":"configure","config":{"port":1}}"#,
        ),
        (ModuleRequest::Start { client_key }, r#"{"call":"start","clientKey":"KEY"}"#),
        (
            ModuleRequest::Stop { client_key, reason: StopReason::Terminated },
            r#"{"call":"stop","clientKey":"KEY","reason":"terminated"}"#,
        ),
        (ModuleRequest::Sessions, r#"{"call":"sessions"}"#),
        (ModuleRequest::Health, r#"{"call":"health"}"#),
        (ModuleRequest::Cleanup, r#"{"call":"cleanup"}"#),
        (ModuleRequest::HandOver, r#"{"call":"handOver"}"#),
        (ModuleRequest::Describe { client_key }, r#"{"call":"describe","clientKey":"KEY"}"#),
    ] {
        check(&message, wire);
    }
    check(&Reply::<_, ()>::Ok(Started::Later), r#"{"ok":"later"}"#);
    check(&Reply::<_, ()>::Ok(Done {}), r#"{"ok":{}}"#);
    check(&Reply::<_, ()>::Ok(StatusReply::new(Status::Active)), r#"{"ok":{"status":"active"}}"#);
    check(
        &Reply::<_, ()>::Ok(Sessions { client_keys: vec![client_key] }),
        r#"{"ok":{"clientKeys":["KEY"]}}"#,
    );
    let description = Description([("port".into(), "1".into())].into());
    check(&Reply::<_, ()>::Ok(description), r#"{"ok":{"port":"1"}}"#);
    check(&Reply::<_, ()>::Ok(Cleaned(vec!["x".into()])), r#"{"ok":["x"]}"#);
    check(&Reply::<_, ()>::Ok(Health::Healthy), r#"{"ok":{"health":"healthy"}}"#);
    check(
        &Reply::<_, ()>::Ok(Health::Degraded("no tun".into())),
        r#"{"ok":{"health":"degraded","detail":"no tun"}}"#,
    );
}

#[test]
fn a_message_of_a_newer_api_is_unknown_and_a_new_field_is_ignored() {
    let request =
        decode::<CoreRequest>(br#"{"call":"teleport","to":{"x":[1]}}"#).expect("readable");
    assert_eq!(request, CoreRequest::Unknown);
    let request = decode::<ModuleRequest>(br#"{"call":"teleport","to":1}"#).expect("readable");
    assert_eq!(request, ModuleRequest::Unknown);
    let reply = decode::<StatusReply>(br#"{"status":"active","mood":"good"}"#).expect("readable");
    assert_eq!(reply.status, Status::Active);
}

#[test]
fn what_is_not_a_message_is_refused() {
    for (wire, expected) in [
        ("", "EOF"),
        ("[]", "missing field"),
        (r#"{"call":"getAccess"}"#, "missing field `clientKey`"),
        (r#"{"call":"getAccess","clientKey":"x"}"#, "UUID"),
        (r#"{"call":"getAccess","clientKey":7}"#, "invalid type"),
        (r#"{"clientKey":"KEY"}"#, "missing field `call`"),
        (
            r#"{"call":"updateSession","clientKey":"KEY","session":"KEY","usage":{"total":9007199254740992}}"#,
            "NumberTooLarge",
        ),
        (
            r#"{"call":"updateSession","clientKey":"KEY","session":"KEY","usage":{"total":-1}}"#,
            "invalid value",
        ),
    ] {
        let error = decode::<CoreRequest>(wire.replace("KEY", KEY).as_bytes()).expect_err(wire);
        let text = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        assert!(text.contains(expected), "{wire}: {text}");
    }
}

#[test]
fn a_password_is_not_shown() {
    let request =
        CoreRequest::AuthClient { client_key: key(), password: Password("hunter2".into()) };
    assert!(!format!("{request:?}").contains("hunter2"));
}

/// An older core says nothing of it, and an older module ignores it.
#[test]
fn credit_is_an_optional_integer_of_replies() {
    for (wire, credit) in [
        (r#"{"status":"active"}"#, Some(None)),
        (r#"{"status":"active","credit":null}"#, Some(None)),
        (r#"{"status":"active","credit":0}"#, Some(Some(0))),
        (r#"{"status":"active","credit":9007199254740991}"#, Some(Some(MAX_INTEGER))),
        (r#"{"status":"active","credit":9007199254740992}"#, None),
        (r#"{"status":"active","credit":-1}"#, None),
        (r#"{"status":"active","credit":"1"}"#, None),
    ] {
        let reply = decode::<StatusReply>(wire.as_bytes()).ok();
        assert_eq!(reply.map(|reply| reply.credit), credit, "{wire}");
        let session = "6f1c1f0e-3b5c-4c5e-8f7a-0c1d2e3f4a5b";
        let wire = wire.replacen('{', &format!("{{\"session\":\"{session}\","), 1);
        let started = decode::<SessionStarted>(wire.as_bytes()).ok();
        assert_eq!(started.map(|started| started.credit), credit, "{wire}");
    }
    let silent = encode(&StatusReply::new(Status::Active));
    assert_eq!(silent, br#"{"status":"active"}"#);
}
