//! Streams that are counted, however they are split, and whenever they are dropped.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy, copy_bidirectional, duplex};
use tokio::time::timeout;

use super::*;
use crate::message::Status;
use crate::sdk::fake::{Fake, Says};
use crate::sdk::{Ended, MeterOptions};

/// A stream that moves so much in each step; 0 is a step in which it is not ready.
struct Splits {
    steps: Vec<usize>,
    next: usize,
    left: u64,
    moved: Arc<AtomicU64>,
    meter: Option<Meter>,
}

impl Splits {
    fn new(steps: &[usize], left: u64) -> Self {
        let (steps, moved) = (steps.to_vec(), Arc::default());
        Self { steps, next: 0, left, moved, meter: None }
    }

    /// The size of the next step, which must be within the credit.
    fn step(&mut self, most: usize, context: &Context<'_>) -> Poll<usize> {
        let step = self.steps[self.next % self.steps.len()];
        self.next += 1;
        if step == 0 {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let size = most.min(step).min(usize::try_from(self.left).unwrap_or(usize::MAX));
        self.left -= size as u64;
        let moved = self.moved.fetch_add(size as u64, SeqCst) + size as u64;
        if let Some(meter) = &self.meter {
            let limit = *meter.limit().borrow();
            assert!(limit.is_none_or(|limit| moved <= limit), "{moved} of {limit:?}");
        }
        Poll::Ready(size)
    }
}

impl AsyncRead for Splits {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let size = ready!(self.step(buffer.remaining(), context));
        buffer.initialize_unfilled_to(size).fill(7);
        buffer.advance(size);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Splits {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match ready!(self.step(bytes.len(), context)) {
            // It takes no more: as a reader that has stopped.
            0 => Poll::Pending,
            size => Poll::Ready(Ok(size)),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Copies in pieces, and drops it if the writer takes no more. What is counted is what was moved.
async fn counts(
    reads: &[usize],
    writes: &[usize],
    grants: &[u64],
    amount: u64,
    taken: u64,
    counts_read: bool,
) -> (u64, u64) {
    let mut plan: Vec<_> =
        grants.iter().map(|grant| Says::Status(Status::Active, Some(*grant))).collect();
    plan.push(Says::Status(Status::Active, None));
    let core = Fake::new(Some(grants[0]), plan);
    let meter = core.meter(MeterOptions::default()).await;
    let (mut reader, mut writer) = (Splits::new(reads, amount), Splits::new(writes, taken));
    let counted = if counts_read { &mut reader } else { &mut writer };
    counted.meter = Some(meter.clone());
    let moved = Arc::clone(&counted.moved);
    let copied = async {
        if counts_read {
            copy(&mut meter.stream(reader), &mut writer).await
        } else {
            copy(&mut reader, &mut meter.stream(writer)).await
        }
    };
    // The time stands still but for this.
    let _ = timeout(Duration::from_secs(60), copied).await;
    assert_eq!(meter.used(), moved.load(SeqCst), "counted as it went");
    assert_eq!(meter.stop().await, 0);
    (core.total(), moved.load(SeqCst))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn what_is_counted_is_what_was_moved_and_never_beyond_the_credit(
        reads in vec(0_usize..6000, 1..20),
        writes in vec(0_usize..6000, 1..20),
        grants in vec(0_u64..20_000, 1..8),
        amount in 0_u64..200_000,
        taken in prop_oneof![Just(u64::MAX), 0_u64..200_000],
        counts_read in any::<bool>(),
    ) {
        // One that is never ready moves nothing.
        let steps = |steps: Vec<usize>| [steps, vec![1000]].concat();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .expect("a runtime");
        let (reads, writes) = (steps(reads), steps(writes));
        let copied = counts(&reads, &writes, &grants, amount, taken, counts_read);
        let (reported, moved) = runtime.block_on(copied);
        prop_assert_eq!(reported, moved);
        if !counts_read {
            prop_assert_eq!(moved, amount.min(taken));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn without_credit_the_other_side_waits_and_nothing_is_cut() {
    let core = Fake::granting(1000, 0);
    let meter = core.meter(MeterOptions::default()).await;
    let (near, mut far) = duplex(64);
    let mut near = meter.stream(near);
    let sent = tokio::spawn(async move { near.write_all(&[1; 3000]).await });
    // The second credit is the last for a while, and the time stands still but for this.
    let mut received = 0;
    let mut piece = [0; 50];
    while let Ok(read) = timeout(Duration::from_secs(60), far.read(&mut piece)).await {
        received += read.expect("not cut");
    }
    assert!((1..=1000).contains(&received), "{received}");
    assert_eq!(core.total(), received as u64);
    core.says(Says::Status(Status::Active, Some(5000)));
    far.read_exact(&mut vec![0; 3000 - received]).await.expect("paid");
    sent.await.expect("no panic").expect("sent");
    assert_eq!(meter.stop().await, 0);
    assert_eq!(core.total(), 3000);
}

#[tokio::test(start_paused = true)]
async fn both_ways_share_a_credit_and_end_with_the_meter() {
    let core = Fake::granting(100_000, 100_000);
    let meter = core.meter(MeterOptions::default()).await;
    let ((near, mut client), (mut end, mut server)) = (duplex(100), duplex(100));
    let mut near = meter.stream(near);
    let relay = tokio::spawn(async move { copy_bidirectional(&mut near, &mut end).await });
    client.write_all(b"ask").await.expect("sent");
    server.read_exact(&mut [0; 3]).await.expect("asked");
    server.write_all(b"answer").await.expect("sent");
    client.read_exact(&mut [0; 6]).await.expect("answered");
    // The end of one way is passed on, and the other goes on.
    client.shutdown().await.expect("ended");
    assert_eq!(server.read(&mut [0; 3]).await.expect("the end"), 0);
    server.write_all(b"last").await.expect("sent");
    client.read_exact(&mut [0; 4]).await.expect("received");
    core.says(Says::Status(Status::Suspended, Some(0)));
    assert_eq!(meter.ended().await, Ended::Status(Status::Suspended));
    server.write_all(b"late").await.expect("taken by the pipe");
    let error = relay.await.expect("no panic").expect_err("ended");
    assert!(error.to_string().contains("suspended"), "{error}");
    assert_eq!(client.read(&mut [0; 4]).await.expect("the end"), 0, "nothing more was served");
    assert_eq!(meter.stop().await, 0);
    assert_eq!(core.total(), 13);
}
