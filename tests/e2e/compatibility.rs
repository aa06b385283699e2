//! Modules and hosts of different ages.
//!
//! A module built against an older plugin-api, which knows one message and one optional field
//! fewer, runs in this host; one built against a newer, which knows more, runs in terms of this
//! host. Both are real builds: see [`crate::support::vintage`].

use privatix_modules::registry::{ModuleView, State};
use privatix_plugin_api::message::ClientKey;

use crate::support::vintage::{Edit, Vintage};
use crate::support::{Database, Node, Package, wait_for};

const MESSAGE: &str = "plugin-api/src/message.rs";
const INSTANCE: &str = "plugin-api/src/sdk/instance.rs";
const MODULE: &str = "tests/modules/faulty/src/lib.rs";

const HEALTH: &str = "    /// Is the module well? Answer: [`Health`].\n    Health,\n";
const ANSWER_HEALTH: &str = "        ModuleRequest::Health => reply(Ok(module.health().await)),\n";
const CONFIGURED: &str = "        self.mark(\"configure\")?;\n";

/// Does not know the message `health` nor the fields of a log event.
pub(crate) const OLDER: Vintage = Vintage {
    name: "older",
    version: "0.0.9",
    edits: &[
        Edit { file: MESSAGE, from: HEALTH, to: "" },
        Edit { file: INSTANCE, from: ANSWER_HEALTH, to: "" },
        Edit {
            file: MESSAGE,
            from: "    /// Named values beside it.
    #[serde(default, skip_serializing_if = \"BTreeMap::is_empty\")]
    pub fields: BTreeMap<String, String>,
",
            to: "",
        },
        Edit {
            file: "plugin-api/src/sdk/log.rs",
            from: "            fields: fields.named,\n",
            to: "",
        },
        Edit {
            file: MODULE,
            from: CONFIGURED,
            to: "        tracing::info!(colour = \"grey\", \"an old one\");\n",
        },
    ],
};

/// Speaks a second version of the Service API, and the first as well: has a call, a message and
/// two fields more, and makes use of them whether or not the host does.
const NEWER: Vintage = Vintage {
    name: "newer",
    version: "0.2.0",
    edits: &[
        Edit {
            file: "plugin-api/src/manifest.rs",
            from: "pub const API_VERSION: u32 = 1;",
            to: "pub const API_VERSION: u32 = 2;",
        },
        Edit {
            file: MESSAGE,
            from: "    /// A log event of the module; sent by the SDK",
            to: "    /// Asks what will be. Answer: a sentence.
    TellFortune {
        /// Of whom.
        client_key: ClientKey,
    },
    /// A log event of the module; sent by the SDK",
        },
        Edit {
            file: "plugin-api/src/sdk/core.rs",
            from: "    /// Any request, for calls that have no method here.",
            to: "    /// What will be.
    ///
    /// # Errors
    /// `Unsupported` by an older core.
    pub async fn tell_fortune(&self, channel: ClientKey) -> Result<String, ApiError> {
        self.call(CoreRequest::TellFortune { client_key: channel }).await
    }

    /// Any request, for calls that have no method here.",
        },
        Edit {
            file: MESSAGE,
            from: HEALTH,
            to: "    /// Is the module well? Answer: [`Health`].
    Health,
    /// Rest for a while. Answer: [`Done`].
    Rest,
",
        },
        Edit {
            file: INSTANCE,
            from: ANSWER_HEALTH,
            to: "        ModuleRequest::Health => reply(Ok(module.health().await)),
        ModuleRequest::Rest => reply(Ok(Done {})),
",
        },
        Edit {
            file: MESSAGE,
            from: "        client_port: Option<u16>,\n    },\n",
            to: "        client_port: Option<u16>,
        /// How the client feels, if known.
        #[serde(default, skip_serializing_if = \"Option::is_none\")]
        mood: Option<String>,
    },
",
        },
        Edit {
            file: "plugin-api/src/sdk/core.rs",
            from: "            client_port: client.map(|address| address.port()),\n",
            to: "            client_port: client.map(|address| address.port()),
            mood: Some(\"curious\".into()),
",
        },
        Edit {
            file: MESSAGE,
            from: "    pub log_level: LogLevel,\n}\n",
            to: "    pub log_level: LogLevel,
    /// What the host lives by.
    #[serde(default)]
    pub motto: Option<String>,
}
",
        },
        Edit {
            file: MODULE,
            from: "        let (settings, serving) = (OnceLock::new(), Mutex::default());\n",
            to: "        let (settings, serving) = (OnceLock::new(), Mutex::default());
        tracing::info!(api = host.api_version, motto = ?host.motto, \"a new one\");
",
        },
        Edit {
            file: MODULE,
            from: CONFIGURED,
            to: "        self.mark(\"configure\")?;
        match self.core.tell_fortune(ClientKey(self.id)).await {
            Err(error) if error.name == ErrorName::Unsupported => {
                tracing::info!(%error, \"no fortune\");
            }
            other => return Err(format!(\"expected to be refused: {other:?}\").into()),
        }
",
        },
    ],
};

/// Runs a module that serves one channel, and uses that channel.
fn serve(package: &Package) -> (Node, Database, ClientKey) {
    let configuration = "health_interval = 1\n[log]\nlevel = \"info,privatix=debug\"\n";
    let mut node = Node::configured("agent", configuration);
    node.run(package);
    let database = Database::of(&node);
    let channel = database.channel(package);
    node.stop();
    node.start();
    node.wait_state(&package.name, State::Running);
    database.wait_used(channel);
    (node, database, channel)
}

fn api_version(view: &ModuleView) -> Option<u32> {
    view.version.as_ref().map(|version| version.api_version)
}

fn wait_logged(node: &Node, text: &str) {
    wait_for(text, || node.log().contains(text).then_some(()));
}

#[test]
fn a_module_built_with_an_older_plugin_api_runs() {
    let package = OLDER.build();
    let (node, _database, _channel) = serve(&package);
    // It does not know the question, which is no reason to call it unwell.
    wait_logged(&node, "the module does not implement health checks");
    let view = node.module("older").expect("a module");
    assert_eq!((view.state, view.health.as_deref()), (State::Running, None));
    assert_eq!(api_version(&view), Some(1));
    let log = node.log();
    assert!(log.contains("an old one") && !log.contains("grey"), "{log}");
    assert!(!log.contains("not well"), "{log}");
    let shown = node.privatix(&["module", "show", "older"]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("older is running.") && !shown.contains("health"), "{shown}");
}

#[test]
fn a_module_built_with_a_newer_plugin_api_runs_in_terms_of_this_host() {
    let package = NEWER.build();
    assert_eq!(package.manifest()["serviceApi"], serde_json::json!({"min": 1, "max": 2}));
    let (node, _database, _channel) = serve(&package);
    let view = node.wait("newer", "asked how it is", |view| view.health.is_some());
    assert_eq!((view.state, view.health.as_deref()), (State::Running, Some("healthy")));
    assert_eq!(api_version(&view), Some(1));
    let log = node.log();
    for said in ["a new one", "api=1 motto=None", "no fortune", "unsupported call (1236233)"] {
        assert!(log.contains(said), "{said:?} is missing in {log}");
    }
}

#[test]
fn versions_of_different_ages_take_over_from_each_other() {
    let [older, newer] = [OLDER, NEWER].map(|vintage| vintage.build().renamed("good"));
    let current = Package::faulty("good");
    let (node, database, channel) = serve(&current);
    for (package, version) in [(&older, "0.0.9"), (&newer, "0.2.0"), (&current, "0.1.0")] {
        let before = database.wait_used(channel);
        package.drop_into(&node.plugins());
        let view = node.wait_version("good", version);
        assert_eq!((view.candidate.clone(), api_version(&view)), (None, Some(1)));
        assert_ne!(database.wait_used(channel).id, before.id);
        let sessions = database.sessions(channel);
        let closed = sessions.iter().find(|session| session.id == before.id).expect("kept");
        assert!(closed.stopped_at.is_some(), "{closed:?}");
        assert!(closed.account.usage > before.account.usage, "{closed:?} after {before:?}");
    }
}
