//! The border: loading, creating, and calls as they cross it.

use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use privatix_modules::generation::CommandError;
use privatix_modules::load;
use privatix_modules::probe::DEADLINE as LOAD_DEADLINE;
use privatix_modules::problem::Code;
use privatix_plugin_api::FaultKind;
use privatix_plugin_api::manifest::Role;
use privatix_plugin_api::message::{Done, ModuleRequest, decode};
use serde_json::Value;

use crate::case::{Case, Finding, case, ensure, failed};
use crate::core::{Bench, Party, health};
use crate::process::{self, Holdings};

const LOAD: &str = "docs/reference/package.md#manifest-of-a-library: The library carries a manifest readable without running its code";

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("abi.load", "Loading the library harms nobody.", LOAD)
            .after(&["package.accepted"])
            .mend("nothing may run in constructors or destructors; install the shared libraries it needs")
            .ends_in_time()
            .run(load_in_time),
        case(
            "abi.root",
            "It exports the root module.",
            "docs/reference/package.md#the-library: In-process: a cdylib behind the stable ABI",
        )
        .after(&["abi.load"])
        .mend("call privatix_plugin_api::export_module! once in the library")
        .run(|bench: Bench| async move { loaded(&bench, &[Code::NoRootModule]) }),
        case(
            "abi.layout",
            "Its types are those of the ABI, version 1.",
            "docs/reference/package.md#the-library: behind the stable ABI",
        )
        .after(&["abi.root"])
        .mend("build it with a released privatix-plugin-api, unchanged")
        .run(|bench: Bench| async move {
            loaded(&bench, &[Code::AbiIncompatible, Code::LayoutMismatch])
        }),
        case(
            "abi.load-quiet",
            "Loading starts nothing: no thread, no process, no open file.",
            LOAD,
        )
        .after(&["abi.layout"])
        .mend("move what constructors do into configure")
        .run(load_quiet),
        case("abi.create", "It can be created, as each of its roles.", "docs/reference/service-api.md#commands-to-a-module: Core → module")
            .after(&["abi.layout"])
            .mend("see the error; create has nothing to do but to make the object")
            .run(create),
        case(
            "abi.create-quiet",
            "Creating it listens to nothing and starts no process.",
            "docs/writing-a-module.md#what-a-module-promises: configure comes before everything else",
        )
        .after(&["abi.create"])
        .mend("open ports and start processes in configure, when the settings are known")
        .run(create_quiet),
        case(
            "abi.unknown-command",
            "A command of a newer Service API is answered as unsupported.",
            "docs/reference/service-api.md#commands-to-a-module: `Unsupported` (unknown call)",
        )
        .after(&["abi.create"])
        .mend("answer what is not known with a fault of the kind `unsupported`")
        .run(unknown_command),
        case(
            "abi.garbage",
            "Bytes that are no command are answered with a fault, and change nothing.",
            "docs/reference/service-api.md#commands-to-a-module: Bad input of any kind gets a clear error",
        )
        .after(&["abi.create"])
        .run(garbage),
        case(
            "abi.dropped-call",
            "A call that nobody waits for any more harms nobody.",
            "docs/reference/service-api.md: Calls may be repeated unchanged after a time-out",
        )
        .after(&["abi.create"])
        .run(dropped_call),
        case(
            "abi.no-runtime",
            "A call can be polled where there is no async runtime.",
            "docs/reference/package.md#the-library: behind the stable ABI",
        )
        .after(&["abi.create"])
        .mend("what a call hands out may only wait; the work belongs on the module's own runtime")
        .run(no_runtime),
        case(
            "abi.two-objects",
            "Two objects of the library can live side by side.",
            "docs/modules.md#replacing: the old one is stopped; the new one started",
        )
        .after(&["abi.create"])
        .mend("keep nothing process-wide: no statics, no fixed files outside of data_dir")
        .run(two_objects),
        case(
            "abi.dropped-object",
            "An object can be dropped without a shutdown.",
            "docs/modules.md#replacing: if it does not come up, the old one is started again",
        )
        .after(&["abi.create"])
        .run(dropped_object),
    ]
}

/// As a host looks at a library in a process of its own, and not for longer.
async fn load_in_time(bench: Bench) -> Result<(), Finding> {
    let begun = Instant::now();
    loaded(&bench, &[Code::LoadFailed])?;
    let took = begun.elapsed();
    ensure(took <= LOAD_DEADLINE, || {
        format!("loading took {took:?}, and a host waits for {LOAD_DEADLINE:?}: LoadTimedOut")
    })
}

/// Fails where loading is refused with one of these codes.
fn loaded(bench: &Bench, codes: &[Code]) -> Result<(), Finding> {
    let role = first_role(bench)?;
    match load::load(&bench.loadable(role)?) {
        Err(problem) if problem.code.is_one_of(codes) => Err(Finding::from(problem)),
        _ => Ok(()),
    }
}

pub(super) fn first_role(bench: &Bench) -> Result<Role, Finding> {
    bench.roles()?.first().copied().ok_or_else(|| failed("the module has no role"))
}

async fn load_quiet(bench: Bench) -> Result<(), Finding> {
    let library = bench.loadable(first_role(&bench)?)?;
    let (before, children) = (Holdings::now()?, process::children()?.len());
    load::load(&library)?;
    let after = Holdings::now()?;
    ensure(after.threads <= before.threads, || "loading started a thread".into())?;
    ensure(process::children()?.len() <= children, || "loading started a process".into())?;
    ensure(after.descriptors <= before.descriptors, || "loading left a file open".into())
}

async fn create(bench: Bench) -> Result<(), Finding> {
    for role in bench.roles()? {
        let party = Party::core(&bench, role).await?;
        drop(party.create().await.map_err(|why| as_role(role, why))?);
    }
    Ok(())
}

fn as_role(role: Role, finding: Finding) -> Finding {
    match finding {
        Finding::Failed(why) => Finding::Failed(format!("as {role}: {why}")),
        other => other,
    }
}

async fn create_quiet(bench: Bench) -> Result<(), Finding> {
    for role in bench.roles()? {
        let party = Party::core(&bench, role).await?;
        let before = (process::listening()?, process::children()?.len());
        let module = party.create().await?;
        let after = (process::listening()?, process::children()?.len());
        ensure(after.0 <= before.0, || format!("as {role} it listens before it is configured"))?;
        ensure(after.1 <= before.1, || format!("as {role} it started a process"))?;
        let calls = party.script.seen();
        ensure(calls.is_empty(), || format!("as {role} it called its core: {:?}", calls[0].call))?;
        drop(module);
    }
    Ok(())
}

/// A module as it is after `create`, and its core.
async fn created(
    bench: &Bench,
) -> Result<(Party, privatix_modules::generation::Generation), Finding> {
    let party = Party::core(bench, first_role(bench)?).await?;
    let module = party.create().await?;
    Ok((party, module))
}

async fn unknown_command(bench: Bench) -> Result<(), Finding> {
    let (_party, module) = created(&bench).await?;
    let reply = raw(&module, b"{\"call\":\"danceAJig\",\"steps\":7}").await?;
    let kind = reply.pointer("/error/kind").and_then(Value::as_str);
    ensure(kind == Some("unsupported"), || format!("it answered {reply}"))
}

async fn garbage(bench: Bench) -> Result<(), Finding> {
    let (_party, module) = created(&bench).await?;
    let texts: [&[u8]; 6] = [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe\x00",
        b"{\"call\":\"start\"}",
        b"{\"call\":\"start\",\"clientKey\":7}",
    ];
    for text in texts {
        let reply = raw(&module, text).await?;
        ensure(reply.get("error").is_some(), || {
            format!("{:?} was answered {reply}", String::from_utf8_lossy(text))
        })?;
    }
    health(&module).await?;
    Ok(())
}

async fn raw(
    module: &privatix_modules::generation::Generation,
    request: &[u8],
) -> Result<Value, Finding> {
    let reply = tokio::time::timeout(Duration::from_secs(5), module.raw(request)).await;
    let reply = reply.map_err(|_| failed("no answer within 5 s"))?;
    Ok(decode::<Value>(&reply)?)
}

async fn dropped_call(bench: Bench) -> Result<(), Finding> {
    let (_party, module) = created(&bench).await?;
    for request in [&b"{\"call\":\"sessions\"}"[..], b"{\"call\":\"health\"}", b"{"] {
        // Dropped before it was polled, and after.
        drop(module.raw(request));
        let mut call = std::pin::pin!(module.raw(request));
        let _ = call.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    }
    health(&module).await?;
    Ok(())
}

async fn no_runtime(bench: Bench) -> Result<(), Finding> {
    let (_party, module) = created(&bench).await?;
    let polled = std::thread::spawn(move || {
        let call = module.raw(b"{\"call\":\"health\"}");
        let mut call = std::pin::pin!(call);
        let until = std::time::Instant::now() + Duration::from_secs(5);
        while std::time::Instant::now() < until {
            let mut context = Context::from_waker(Waker::noop());
            if let Poll::Ready(reply) = call.as_mut().poll(&mut context) {
                return Some(decode::<Value>(&reply).is_ok());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        None
    });
    let polled = tokio::task::spawn_blocking(move || polled.join()).await?;
    match polled {
        Ok(Some(true)) => Ok(()),
        Ok(Some(false)) => Err(failed("the answer cannot be read")),
        Ok(None) => Err(failed("no answer within 5 s")),
        Err(_) => Err(failed("polling the call panicked")),
    }
}

async fn two_objects(bench: Bench) -> Result<(), Finding> {
    let party = Party::core(&bench, first_role(&bench)?).await?;
    let (one, other) = (party.create().await?, party.create().await?);
    answers(&one).await?;
    drop(one);
    answers(&other).await
}

async fn dropped_object(bench: Bench) -> Result<(), Finding> {
    let (party, module) = created(&bench).await?;
    drop(module);
    answers(&party.create().await?).await
}

/// Whether a module that is not configured says anything at all; it may say no.
async fn answers(module: &privatix_modules::generation::Generation) -> Result<(), Finding> {
    let outcome: Result<Done, _> = module
        .call(&ModuleRequest::Configure { config: Value::Null }, Duration::from_secs(5))
        .await;
    match outcome {
        Err(error @ (CommandError::TimedOut(_) | CommandError::Unreadable(_))) => {
            Err(Finding::from(error))
        }
        Err(CommandError::Fault(fault)) if fault.kind == FaultKind::Stopped => {
            Err(failed("an object that lives says that it is shut down"))
        }
        _ => Ok(()),
    }
}
