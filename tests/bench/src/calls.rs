//! The bare crossing: a call of a loaded module that has its answer at once.
//!
//! There is no JSON and no runtime here, only the object, a future and the bytes that move through
//! them.

use std::hint::black_box;
use std::path::Path;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use anyhow::anyhow;
use privatix_plugin_api::abi::{Bytes, FfiResult, ModuleObject};
use privatix_plugin_api::message::encode;

use crate::figures::{Figures, Row, batches};
use crate::messages::{self, Host};
use crate::{Effort, report};

const BATCH: u32 = 1_000;
const REQUEST: &[u8] = br#"{"call":"health"}"#;

pub(crate) fn measure(library: &Path, effort: Effort) -> anyhow::Result<Vec<Row>> {
    let bare = pointer(effort);
    let (answered, future) = abi(library, effort)?;
    Ok(vec![
        Row::new("a call through a pointer", bare),
        Row::new("the ABI call, with its future", future).above("a call through a pointer", bare),
        Row::new("the ABI call, with its future and its bytes", answered)
            .above("a call through a pointer", bare)
            .target(100.0 * report::NANOSECOND),
    ])
}

/// What every call costs at least.
fn pointer(effort: Effort) -> Figures {
    extern "C" fn next(number: u64) -> u64 {
        number.wrapping_add(1)
    }
    let call: extern "C" fn(u64) -> u64 = black_box(next);
    let mut number = 0;
    Figures::of(batches(effort.batches, BATCH, || number = black_box(call)(black_box(number))))
}

/// With a request that has to be made and given up, and with an empty one.
fn abi(library: &Path, effort: Effort) -> anyhow::Result<(Figures, Figures)> {
    let root = privatix_modules::load::load(library).map_err(|problem| anyhow!("{problem}"))?;
    let host = Host::new()?;
    let info = Bytes::from(encode(&messages::info("ready", host.home())));
    let module: ModuleObject = match root.create()(host.core(), info) {
        FfiResult::ROk(module) => module,
        FfiResult::RErr(fault) => return Err(anyhow!("{}", String::from_utf8_lossy(&fault))),
    };
    let mut waiting = false;
    let mut call = |request: &[u8]| {
        let answer = pin!(black_box(&module).call(Bytes::from(black_box(request))));
        match answer.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(reply) => drop(black_box(reply)),
            Poll::Pending => waiting = true,
        }
    };
    let with_bytes = Figures::of(batches(effort.batches, BATCH, || call(REQUEST)));
    let empty = Figures::of(batches(effort.batches, BATCH, || call(&[])));
    if waiting {
        return Err(anyhow!("the module did not answer at once"));
    }
    Ok((with_bytes, empty))
}
