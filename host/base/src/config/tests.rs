//! What becomes of files and variables: tables of text in, field or message out.

use std::fs;

use proptest::prelude::*;
use serde_json::json;

use super::*;

const HOME: &str = "/n";

fn outcome(text: &str, env: &[(&str, &str)]) -> Result<Config, String> {
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let path = Path::new(HOME).join("p.toml");
    file::with_deep_stack(|| Config::from_text(Path::new(HOME), &path, text, env))
        .map_err(|error| error.to_string())
}

/// What the configuration became, as JSON, at a JSON pointer.
fn check(text: &str, env: &[(&str, &str)], pointer: &str, expected: &Value) {
    let config = outcome(text, env).unwrap_or_else(|error| panic!("{text:?} {env:?}: {error}"));
    let found = serde_json::to_value(config).expect("serialisable");
    assert_eq!(found.pointer(pointer), Some(expected), "{text:?} {env:?}");
}

fn check_refused(text: &str, env: &[(&str, &str)], expected: &str) {
    let error = outcome(text, env).expect_err(text);
    assert_eq!(error, expected, "{text:?} {env:?}");
}

fn seconds(seconds: u64) -> Value {
    json!({"secs": seconds, "nanos": 0})
}

#[test]
fn the_shortest_file_gives_the_defaults() {
    let config = outcome("role = 'client'", &[]).expect("accepted");
    let ten = Duration::from_secs(10);
    let thirty = Duration::from_secs(30);
    let expected = Config {
        home: "/n".into(),
        role: Role::Client,
        plugins_dir: "/n/plugins".into(),
        database: "/n/state.db".into(),
        cache_dir: "/n/cache".into(),
        data_dir: "/n/modules".into(),
        socket: "/n/privatix.sock".into(),
        shutdown_timeout: Duration::from_secs(20),
        removal_grace: Duration::from_secs(2),
        rescan: Duration::from_secs(5),
        health_interval: ten,
        log: Log { level: "info".into(), format: LogFormat::Auto },
        module: ModuleTimeouts {
            create: ten,
            configure: ten,
            start: thirty,
            stop: thirty,
            call: ten,
            shutdown: ten,
        },
        channels: Channels {
            activation_timeout: Duration::from_secs(60),
            first_payment_timeout: Duration::from_secs(600),
            max_unreported: 64 << 20,
        },
        exchange: Exchange {
            listen: ([127, 0, 0, 1], 8480).into(),
            url: String::new(),
            tls_cert: None,
            tls_key: None,
            requests_per_minute: 3000,
            connections_per_address: 64,
        },
        standalone: Standalone {
            enabled: false,
            listen: ([127, 0, 0, 1], 8482).into(),
            tls_cert: None,
            tls_key: None,
            connections: 1024,
        },
        agent: Agent {
            orders: OrderPolicy::Allowlist,
            allowlist: Vec::new(),
            max_channels_per_client: 10,
            max_orders_per_hour: 60,
            max_waiting_orders_per_client: 5,
            max_waiting_orders: 1000,
            service_endpoint_address: String::new(),
        },
        client: Client {
            poll_interval: Duration::from_secs(5),
            ca_file: None,
            allow_foreign_payment_receiver: false,
            tolerance: 3,
            tolerance_bytes: 16 << 20,
            tolerance_seconds: 10,
        },
        modules: BTreeMap::new(),
    };
    assert_eq!(config, expected);
    assert_eq!(outcome(&default_file(Role::Client), &[]), Ok(expected));
}

#[test]
fn values_of_the_file() {
    for (text, pointer, expected) in [
        ("plugins_dir = '/srv/p'", "/plugins_dir", json!("/srv/p")),
        ("plugins_dir = 'a/b'", "/plugins_dir", json!("/n/a/b")),
        ("exchange.tls_key = 'a/b'", "/exchange/tls_key", json!("/n/a/b")),
        ("standalone.tls_cert = 'a/b'", "/standalone/tls_cert", json!("/n/a/b")),
        ("client.ca_file = '/etc/ca.pem'", "/client/ca_file", json!("/etc/ca.pem")),
        ("client.ca_file = ''", "/client/ca_file", json!(null)),
        ("removal_grace = 0", "/removal_grace", seconds(0)),
        ("rescan_interval = 1", "/rescan_interval", seconds(1)),
        ("health_interval = 86_400", "/health_interval", seconds(86400)),
        ("log.format = 'json'", "/log/format", json!("json")),
        ("[log]\nlevel = 'debug'", "/log/level", json!("debug")),
        ("[log]\nlevel = 'debug'", "/log/format", json!("auto")),
        ("[module_timeouts]\nstart = 1", "/module_timeouts/start", seconds(1)),
        ("[module_timeouts]\nstart = 1", "/module_timeouts/stop", seconds(30)),
        (
            "[modules.vpn]\na = 0x10\nb = [1, 'x', {c = true}]\nd.e = ''",
            "/modules/vpn",
            json!({"a": 16, "b": [1, "x", {"c": true}], "d": {"e": ""}}),
        ),
        ("[modules.vpn]", "/modules/vpn", json!({})),
        ("[modules.a]\nn = 9007199254740991", "/modules/a/n", json!(9_007_199_254_740_991_u64)),
    ] {
        check(&format!("role = 'agent'\n{text}"), &[], pointer, &expected);
    }
    check("\u{feff}role = 'agent'", &[], "/role", &json!("agent"));
}

#[test]
fn refusals_of_the_file() {
    for (text, expected) in [
        ("", "/n/p.toml: role is not set; write role = \"agent\" or role = \"client\""),
        (
            "role = 'broker'",
            "/n/p.toml:1:1: role: unknown variant `broker`, expected `agent` or `client`",
        ),
        ("role = 1", "/n/p.toml:1:1: role has to be a string, not an integer"),
        ("Role = 'agent'", "/n/p.toml:1:1: unknown key Role; did you mean role?"),
        ("rloe = 'agent'", "/n/p.toml:1:1: unknown key rloe; did you mean role?"),
        ("log.levle = 'x'", "/n/p.toml:1:5: unknown key log.levle; did you mean log.level?"),
        ("level = 'x'", "/n/p.toml:1:1: unknown key level; did you mean log.level?"),
        ("[log]\nrole = 'agent'", "/n/p.toml:2:1: unknown key log.role; did you mean role?"),
        ("plugins = 'x'", "/n/p.toml:1:1: unknown key plugins; did you mean plugins_dir?"),
        ("[module.vpn]", "/n/p.toml:1:2: unknown key module; did you mean modules?"),
        ("[lgo]\nlevel = 'x'", "/n/p.toml:1:2: unknown key lgo; did you mean log?"),
        ("zebra = 1\naardvark = 1", "/n/p.toml:1:1: unknown key zebra"),
        ("\"\\u001b[31m\" = 1", "/n/p.toml:1:1: unknown key \"\\u{1b}[31m\""),
        ("log = 1", "/n/p.toml:1:1: log has to be a section, not an integer"),
        ("modules = 1", "/n/p.toml:1:1: modules has to be a section, not an integer"),
        ("database = {a = 1}", "/n/p.toml:1:1: database has to be a string, not a section"),
        ("[log]\n  level = true", "/n/p.toml:2:3: log.level has to be a string, not a boolean"),
        (
            "shutdown_timeout = '20'",
            "/n/p.toml:1:1: shutdown_timeout has to be an integer, not a string",
        ),
        (
            "role = 'agent'\nshutdown_timeout = 0",
            "/n/p.toml:2:1: shutdown_timeout: 0 is not from 1 to 86400 seconds",
        ),
        (
            "role = 'agent'\nremoval_grace = 86401",
            "/n/p.toml:2:1: removal_grace: 86401 is not from 0 to 86400 seconds",
        ),
        (
            "role = 'agent'\nmodule_timeouts.call = 0",
            "/n/p.toml:2:17: module_timeouts.call: 0 is not from 1 to 86400 seconds",
        ),
        (
            "role = 'agent'\nlog.format = 'xml'",
            "/n/p.toml:2:5: log.format: unknown variant `xml`, expected one of `auto`, `text`, \
             `json`",
        ),
        ("role = 'agent'\nsocket = ''", "/n/p.toml:2:1: socket: a path may not be empty"),
        (
            "role = 'agent'\nsocket = \"a\\u0000\"",
            "/n/p.toml:2:1: socket: a path may not hold a NUL character",
        ),
        (
            "[modules.vpn]\nprice = 1.5",
            "/n/p.toml:2:9: modules.vpn.price: 1.5 is not a whole number from 0 to \
             9007199254740991; put it in quotes to mean text",
        ),
        (
            "[modules.vpn]\nn = [1, -1]",
            "/n/p.toml:2:9: modules.vpn.n: -1 is not a whole number from 0 to 9007199254740991",
        ),
        (
            "[modules.vpn]\nn = 9007199254740992",
            "/n/p.toml:2:5: modules.vpn.n: 9007199254740992 is not a whole number from 0 to \
             9007199254740991",
        ),
        (
            "[modules.vpn]\nday = 2020-01-01",
            "/n/p.toml:2:7: modules.vpn.day: a date has to be put in quotes, as text",
        ),
        (
            "role = 'agent'\n[modules.VPN]",
            "/n/p.toml:2:10: modules.VPN: a module's name is 1 to 32 of a-z, 0-9, '-' and '_', \
             beginning with a letter",
        ),
        (
            "role = 'agent'\nmodules.vpn = 5",
            "/n/p.toml:2:9: modules.vpn has to be a section, not an integer",
        ),
        (
            "role = 'agent'\n[[modules.vpn]]",
            "/n/p.toml:2:11: modules.vpn has to be a section, not an array",
        ),
    ] {
        check_refused(text, &[], expected);
    }
}

#[test]
fn what_is_not_toml_is_refused_with_its_place() {
    for (text, place) in [
        ("role = agent", "1:8"),
        ("role = 'a'\nrole = 'b'", "2:1"),
        ("é = 1", "1:1"),
        ("[a\n", "1:3"),
    ] {
        let error = outcome(text, &[]).expect_err(text);
        let beginning = format!("/n/p.toml:{place}: not valid TOML: ");
        assert!(error.starts_with(&beginning) && error.lines().count() == 1, "{text:?}: {error}");
    }
}

#[test]
fn variables_override_the_file() {
    const FILE: &str = "role = 'agent'\n[log]\nlevel = 'warn'\n\
        [modules.my-vpn]\nPort-Range = [1]\npin = '0'\nlimit.day = 5\n";
    for (variable, value, pointer, expected) in [
        ("PRIVATIX_ROLE", "client", "/role", json!("client")),
        ("PRIVATIX_LOG__FORMAT", "json", "/log/format", json!("json")),
        ("PRIVATIX_LOG__LEVEL", "debug", "/log/level", json!("debug")),
        ("PRIVATIX_DATABASE", "1", "/database", json!("/n/1")),
        ("PRIVATIX_DATABASE", "'a'", "/database", json!("/n/'a'")),
        ("PRIVATIX_REMOVAL_GRACE", " 7 ", "/removal_grace", seconds(7)),
        ("PRIVATIX_MODULE_TIMEOUTS__CALL", "3", "/module_timeouts/call", seconds(3)),
        (
            "PRIVATIX_MODULES__MY_VPN__PORT_RANGE",
            "[4, 5]",
            "/modules/my-vpn/Port-Range",
            json!([4, 5]),
        ),
        ("PRIVATIX_MODULES__MY_VPN__PIN", "1234", "/modules/my-vpn/pin", json!("1234")),
        ("PRIVATIX_MODULES__MY_VPN__LIMIT__DAY", "6", "/modules/my-vpn/limit/day", json!(6)),
        ("PRIVATIX_MODULES__MY_VPN__LIMIT", "{day = 7}", "/modules/my-vpn/limit/day", json!(7)),
        ("PRIVATIX_MODULES__MY_VPN__NEW_KEY", "true", "/modules/my-vpn/new_key", json!(true)),
        ("PRIVATIX_MODULES__MY_VPN__NEW__KEY", "a b", "/modules/my-vpn/new/key", json!("a b")),
        ("PRIVATIX_MODULES__ECHO__PORT", "1194", "/modules/echo/port", json!(1194)),
        ("PRIVATIX_MODULES__ECHO__NAME", "\"1194\"", "/modules/echo/name", json!("1194")),
        ("PRIVATIX_MODULES__ECHO__NAME", "", "/modules/echo/name", json!("")),
        ("PRIVATIX_HOME", "/elsewhere", "/database", json!("/n/state.db")),
        ("PRIVATIX_SDK", "/elsewhere", "/database", json!("/n/state.db")),
        ("PRIVATIX_TOKEN", "a token", "/database", json!("/n/state.db")),
        ("PRIVATIXES", "x", "/database", json!("/n/state.db")),
    ] {
        check(FILE, &[(variable, value)], pointer, &expected);
    }
    check("", &[("PRIVATIX_ROLE", "client")], "/role", &json!("client"));
    let both = [("PRIVATIX_MODULES__A__B__C", "2"), ("PRIVATIX_MODULES__A__B", "{c = 1, d = 1}")];
    check(FILE, &both, "/modules/a/b", &json!({"c": 2, "d": 1}));
    let exact = "role = 'agent'\n[modules.a-b]\n[modules.a_b]\n";
    check(exact, &[("PRIVATIX_MODULES__A_B__C", "2")], "/modules/a_b/c", &json!(2));
}

#[test]
fn refusals_of_variables() {
    const FILE: &str =
        "role = 'agent'\n[modules.a-b_c]\n[modules.a_b-c]\n[modules.vpn]\nport = 1\n";
    for (variable, value, expected) in [
        ("PRIVATIX_RLOE", "agent", "PRIVATIX_RLOE: unknown variable; did you mean PRIVATIX_ROLE?"),
        (
            "PRIVATIX_LOG_LEVEL",
            "info",
            "PRIVATIX_LOG_LEVEL: unknown variable; did you mean PRIVATIX_LOG__LEVEL?",
        ),
        (
            "PRIVATIX_MODULE__VPN__PORT",
            "1",
            "PRIVATIX_MODULE__VPN__PORT: unknown variable; did you mean \
             PRIVATIX_MODULES__VPN__PORT?",
        ),
        ("PRIVATIX_COLOUR", "1", "PRIVATIX_COLOUR: unknown variable"),
        ("PRIVATIX_", "1", "PRIVATIX_: unknown variable"),
        ("PRIVATIX_ROLE__", "1", "PRIVATIX_ROLE__: unknown variable"),
        (
            "PRIVATIX_LOG",
            "info",
            "PRIVATIX_LOG: log is a section; set its keys one by one, as PRIVATIX_LOG__KEY",
        ),
        (
            "PRIVATIX_MODULES__VPN",
            "{}",
            "PRIVATIX_MODULES__VPN: modules.vpn is a section; set its keys one by one, as \
             PRIVATIX_MODULES__VPN__KEY",
        ),
        (
            "PRIVATIX_MODULES__VPN__PORT__LOW",
            "1",
            "PRIVATIX_MODULES__VPN__PORT__LOW: modules.vpn.port is an integer, so it has no keys",
        ),
        (
            "PRIVATIX_MODULES__A_B_C__X",
            "1",
            "PRIVATIX_MODULES__A_B_C__X: could mean a-b_c or a_b-c; set it in privatix.toml",
        ),
        (
            "PRIVATIX_MODULES__2X__A",
            "1",
            "PRIVATIX_MODULES__2X__A: modules.2x: a module's name is 1 to 32 of a-z, 0-9, '-' and \
             '_', beginning with a letter",
        ),
        (
            "PRIVATIX_MODULES__VPN__PORT",
            "1.5",
            "PRIVATIX_MODULES__VPN__PORT: modules.vpn.port: 1.5 is not a whole number from 0 to \
             9007199254740991; put it in quotes to mean text",
        ),
        (
            "PRIVATIX_SHUTDOWN_TIMEOUT",
            "soon",
            "PRIVATIX_SHUTDOWN_TIMEOUT: shutdown_timeout has to be an integer, not a string",
        ),
        (
            "PRIVATIX_SHUTDOWN_TIMEOUT",
            "0",
            "PRIVATIX_SHUTDOWN_TIMEOUT: shutdown_timeout: 0 is not from 1 to 86400 seconds",
        ),
        (
            "PRIVATIX_LOG__FORMAT",
            "xml",
            "PRIVATIX_LOG__FORMAT: log.format: unknown variant `xml`, expected one of `auto`, \
             `text`, `json`",
        ),
    ] {
        check_refused(FILE, &[(variable, value)], expected);
    }
    check_refused(
        FILE,
        &[("PRIVATIX_ROLE", "agent"), ("PRIVATIX_role", "client")],
        "PRIVATIX_ROLE and PRIVATIX_role both set role; unset one of them",
    );
}

/// The leaves of `default.toml`.
fn known_leaves() -> Vec<(Key, Value)> {
    fn collect(table: &Map<String, Value>, key: &mut Key, leaves: &mut Vec<(Key, Value)>) {
        for (name, value) in table {
            key.push(name.clone());
            match value {
                Value::Object(inner) => collect(inner, key, leaves),
                leaf => leaves.push((key.clone(), leaf.clone())),
            }
            key.pop();
        }
    }
    let text = default_file(Role::Agent);
    let document = Document::parse(Path::new("d"), &text).expect("TOML");
    let mut leaves = Vec::new();
    collect(&document.values().expect("values"), &mut Key::new(), &mut leaves);
    leaves
}

#[test]
fn each_key_of_the_default_file_is_a_field_and_has_a_variable() {
    let text = default_file(Role::Agent);
    for (key, default) in known_leaves() {
        let name = key.last().expect("a name").as_str();
        let line =
            text.lines().find(|line| line.starts_with(&format!("{name} ="))).expect("a line");
        let without = text.replacen(line, "", 1);
        let rest: Value = toml::from_str(&without).expect("TOML");
        if name != "role" {
            let error = serde_json::from_value::<Config>(rest).expect_err(name).to_string();
            assert!(error.contains(&format!("missing field `{name}`")), "{name}: {error}");
        }
        let value = default.as_str().map_or_else(|| default.to_string(), str::to_owned);
        let variable = variables::name_of(&key);
        assert_eq!(outcome(&text, &[(&variable, &value)]), outcome(&text, &[]), "{variable}");
        let error = outcome(&text, &[(&variable, "")]);
        // An empty list of directives is for the log to refuse; the others may be empty.
        let free = ["level", "url", "tls_cert", "tls_key", "ca_file", "service_endpoint_address"];
        let free = free.contains(&name);
        assert_eq!(error.is_ok(), free, "{variable}");
    }
}

/// The fields, at every level that `default.toml` has, are exactly its keys: an optional field
/// that is missing there would otherwise be a key that no file may have.
#[test]
fn each_field_is_a_key_of_the_default_file() {
    fn same_keys(known: &Map<String, Value>, fields: &Map<String, Value>) {
        assert_eq!(known.keys().collect::<Vec<_>>(), fields.keys().collect::<Vec<_>>());
        for (name, value) in known {
            if let (Value::Object(known), Value::Object(fields)) = (value, &fields[name]) {
                same_keys(known, fields);
            }
        }
    }
    let config = outcome("role = 'agent'", &[]).expect("accepted");
    let fields = serde_json::to_value(config).expect("serialisable");
    let known = toml::from_str::<Value>(keys::DEFAULT_FILE).expect("TOML");
    same_keys(known.as_object().expect("a table"), fields.as_object().expect("an object"));
}

#[test]
fn each_key_of_the_default_file_is_explained_with_its_default() {
    let mut block = Vec::new();
    let mut keys = 0;
    for line in keys::DEFAULT_FILE.lines() {
        match line.split_once(" = ").filter(|_| !line.starts_with('#')) {
            Some(("role", _)) => assert!(block.contains(&"# Required, without a default.")),
            Some((key, value)) => {
                assert!(block.len() >= 2, "{key} is not explained");
                assert_eq!(block.last(), Some(&format!("# Default: {value}.").as_str()), "{key}");
            }
            None if line.starts_with('#') => {
                block.push(line);
                continue;
            }
            None => {
                block.clear();
                continue;
            }
        }
        keys += 1;
        block.clear();
    }
    assert_eq!(keys, known_leaves().len());
}

fn load(prepare: impl FnOnce(&Path)) -> Result<Config, String> {
    let home = tempfile::tempdir().expect("a directory");
    prepare(&home.path().join(FILE_NAME));
    let shown = home.path().display().to_string();
    Config::load(home.path(), []).map_err(|error| error.to_string().replace(&shown, "HOME"))
}

#[test]
fn the_file_is_read_from_the_home() {
    for role in [Role::Agent, Role::Client] {
        let loaded = load(|path| fs::write(path, default_file(role)).expect("written"));
        let config = loaded.expect("the default file loads");
        assert_eq!(config.role, role);
        assert_eq!(config.socket, config.home.join("privatix.sock"));
    }
    let write = |bytes: Vec<u8>| move |path: &Path| fs::write(path, bytes).expect("written");
    let refused = [
        (
            load(|_| ()),
            "there is no HOME/privatix.toml; write one with `privatix init --role agent|client`",
        ),
        (
            load(|path| fs::create_dir(path).expect("created")),
            "HOME/privatix.toml is not a regular file",
        ),
        (
            load(write(b"role = 'agent'\n\n\xff".into())),
            "HOME/privatix.toml is not UTF-8: see line 3",
        ),
        (load(write(vec![b'#'; (1 << 20) + 1])), "HOME/privatix.toml is larger than 1048576 bytes"),
    ];
    for (outcome, expected) in refused {
        assert_eq!(outcome, Err(expected.to_owned()));
    }
    let largest = load(write(vec![b'#'; 1 << 20])).expect_err("no role");
    assert!(largest.contains("role is not set"), "{largest}");
}

#[test]
fn deep_nesting_is_refused_without_overflowing_the_stack() {
    let keys = |count: usize| vec!["a"; count].join(".");
    let inline = |levels: usize| {
        format!("x = {}1{}", format!("{{{} = ", keys(75)).repeat(levels), "}".repeat(levels))
    };
    for text in [
        format!("[modules.{}]", keys(70)),
        format!("modules.x = {}{}", "[".repeat(64), "]".repeat(64)),
        format!("modules.{}", inline(70)),
        format!("modules.{}\n=", inline(70)),
        format!("modules.{0}\nmodules.{0}", inline(78)),
        "[".repeat(1 << 20),
        format!("{}a = 1", "a.".repeat(1 << 19)),
        format!("modules.x = {}", "{a=".repeat(1 << 18)),
    ] {
        let error = outcome(&text, &[]).expect_err("refused");
        assert!(error.contains("nested deeper") || error.contains("not valid TOML"), "{error}");
    }
    let fits = format!("modules.vpn.x = {}{}\nrole = 'agent'", "[".repeat(62), "]".repeat(62));
    assert_eq!(outcome(&fits, &[]).err(), None);
    let value = format!("{{{}}}", inline(70));
    check_refused(
        "role = 'agent'",
        &[("PRIVATIX_MODULES__VPN__X", &value)],
        "PRIVATIX_MODULES__VPN__X: modules.vpn.x: nested deeper than 64 levels",
    );
    let variable = format!("PRIVATIX_MODULES{}", "__A".repeat(1 << 17));
    check_refused("", &[(&variable, "1")], &format!("{variable}: unknown variable"));
}

/// Text that is nearly a configuration.
fn lines() -> impl Strategy<Value = String> {
    let known: Vec<String> =
        known_leaves().into_iter().map(|(key, _)| keys::dotted(&key)).collect();
    let key = prop_oneof![
        proptest::sample::select(known),
        "modules\\.[a-zA-Z_-]{1,3}(\\.[a-z-]{1,2}){0,2}",
        "\\[\\[?[a-z.]{1,9}\\]?\\]\n[a-z]{1,4}",
    ];
    let value = prop_oneof![
        "'[a-z]{0,6}'",
        "-?[0-9]{1,18}",
        "[0-9.e:-]{1,10}",
        "\\[[0-9, ]{0,6}\\]",
        "\\{a = 1\\}",
        "true"
    ];
    proptest::collection::vec((key, value), 0..6).prop_map(|lines| {
        lines.into_iter().map(|(key, value)| format!("{key} = {value}\n")).collect()
    })
}

fn variable() -> impl Strategy<Value = (String, String)> {
    let name = prop_oneof!["PRIVATIX_[A-Za-z_]{0,20}", "PRIVATIX_MODULES__[A-C_]{1,9}"];
    (name, prop_oneof!["\\PC{0,8}", "[0-9{}=\\[\\]. ]{0,8}"])
}

proptest! {
    #[test]
    fn any_text_and_variables_are_accepted_or_refused(
        text in prop_oneof![any::<String>(), lines()],
        env in proptest::collection::vec(variable(), 0..4),
    ) {
        let env: Vec<_> = env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        for text in [text.clone(), format!("role = 'agent'\n{text}")] {
            if let Err(error) = outcome(&text, &env) {
                let named = ["/n/p.toml", "PRIVATIX_"].iter().any(|name| error.starts_with(name));
                prop_assert!(named, "{error}");
            }
        }
    }

    #[test]
    fn any_bytes_in_the_file_are_accepted_or_refused(bytes: Vec<u8>) {
        let _ = load(|path| fs::write(path, &bytes).expect("written"));
    }
}
