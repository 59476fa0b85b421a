//! The control sockets, in both directions: messages and descriptors that the other side made up.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use proto::control::{self, ControlSocket};
use proto::description::CodeKind;
use proto::limits::CONTROL_BYTES_MAX;
use proto::limits::compile::{CompileLimit, CompileLimits, ExceededLimit};
use proto::message::{
    Chunk, CompileError, CompileReply, CompileRequest, CompileWork, EventLevels, FromWorkerControl, ModuleId,
    Reply, ShareId, ToWorkerControl,
};
use proto::policy::{LayerReport, LayerState, SandboxLayer, SandboxPolicy, SandboxReport, SandboxRequest};
use proto::preopen::{DirAccess, GuestDir};
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use serde::Serialize;
use serde::de::DeserializeOwned;
use wasmpool::error::ModuleError;
use wasmpool::fuzzing::Input;
use wasmpool::fuzzing::text::assert_harmless;

use crate::bounded::within;

/// Most that a message may cost once it is decoded; `frames` says why. Twice, since it is encoded again.
const DECODED_BYTES_MAX: usize = 2 * 1024 * 1024 + 96 * CONTROL_BYTES_MAX;

/// The input: which message is expected, how many descriptors come along, how often it is repeated
/// (a message may be as long as the socket takes), the message.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let (kind, descriptors) = (input.byte() % 4, usize::from(input.byte() % 4));
    let repeat = match input.byte() {
        many @ 250.. => usize::from(many - 249) * CONTROL_BYTES_MAX / 4 / input.0.len().max(1),
        _ => 1,
    };
    let bytes = input.0.repeat(repeat);
    match kind {
        0 => match exchange::<FromWorkerControl>(&bytes, descriptors, 0) {
            Some(FromWorkerControl::Ready { sandbox, .. }) if sandbox.is_well_formed() => {
                assert_harmless(&within(DECODED_BYTES_MAX, || sandbox.to_string()));
            }
            _ => {}
        },
        1 => drop(exchange::<ToWorkerControl>(&bytes, descriptors, 2)),
        2 => drop(exchange::<CompileRequest>(&bytes, descriptors, 3)),
        _ => {
            if let Some(Err(refusal)) = exchange::<CompileReply>(&bytes, descriptors, 0) {
                let shown = within(DECODED_BYTES_MAX, || ModuleError::from(refusal).to_string());
                assert_harmless(&shown);
                // Every byte as an escape, each twice at the most, and the words around.
                assert!(shown.len() < 20 * bytes.len() + 1000);
            }
        }
    }
}

fn exchange<M: Serialize + DeserializeOwned>(
    bytes: &[u8],
    descriptors: usize,
    descriptors_max: usize,
) -> Option<M> {
    let (ours, theirs) = control::pair().expect("a socket pair");
    let free = lowest_free(ours.as_fd());
    if send(&theirs, bytes, &vec![ours.as_fd(); descriptors]).is_err() {
        // Longer than the socket takes: the kernel has refused it.
        assert!(bytes.len() > CONTROL_BYTES_MAX);
        return None;
    }
    let received = within(DECODED_BYTES_MAX, || ours.receive::<M>(descriptors_max, RecvFlags::DONTWAIT));
    let message = match received {
        Ok(Some((message, received))) => {
            assert!(!bytes.is_empty() && bytes.len() <= CONTROL_BYTES_MAX);
            assert!(descriptors <= descriptors_max && received.len() == descriptors);
            let (_, left_over) = postcard::take_from_bytes::<M>(bytes).expect("it was received");
            assert!(left_over.is_empty(), "bytes of the message were not looked at");
            Some(message)
        }
        // An empty message cannot be told from the end of the stream: its sender has given up.
        Ok(None) => {
            assert!(bytes.is_empty());
            None
        }
        Err(error) => {
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
            assert_harmless(&error.to_string());
            None
        }
    };
    // A descriptor that another target's thread closes meanwhile makes it lower.
    assert!(lowest_free(ours.as_fd()) <= free, "a descriptor stays open");
    if let Some(message) = &message {
        round_trip(message);
    }
    message
}

/// A message must be received as it was sent.
fn round_trip<M: Serialize + DeserializeOwned>(message: &M) {
    let (ours, theirs) = control::pair().expect("a socket pair");
    ours.send(message, &[]).expect("what was received can be sent");
    let received = ControlSocket(theirs).receive::<M>(0, RecvFlags::DONTWAIT).expect("receives");
    let (received, _) = received.expect("a message");
    let encode = |message: &M| postcard::to_stdvec(message).expect("encodes");
    assert_eq!(encode(&received), encode(message));
}

fn send(to: &OwnedFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> rustix::io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(descriptors)));
    }
    rustix::net::sendmsg(to, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::DONTWAIT)
}

/// Descriptors are handed out from below: one that leaks takes this place.
fn lowest_free(any: BorrowedFd<'_>) -> i32 {
    rustix::io::fcntl_dupfd_cloexec(any, 0).expect("a descriptor").as_raw_fd()
}

fn report() -> SandboxReport {
    let report = |layer| {
        let state = if layer == SandboxLayer::Cgroup { LayerState::Refused } else { LayerState::Applied };
        let mut report = LayerReport::new(layer, state, "because \u{1b}[31m".into());
        report.verified = Some(true);
        report
    };
    SandboxReport::new(SandboxPolicy::Strict, SandboxLayer::ALL.into_iter().map(report).collect())
}

fn setup() -> ToWorkerControl {
    ToWorkerControl::Setup {
        wire: 1,
        sandbox: SandboxRequest::default(),
        pagemap_scan: true,
        wasm_stack_bytes: 1 << 20,
        events: EventLevels { own: 2, engine: 0 },
        dirs: vec![GuestDir { guest_path: "/data".into(), access: DirAccess::ReadOnly }],
        probe: None,
    }
}

fn request() -> CompileRequest {
    let (sandbox, limits) = (SandboxRequest::default(), CompileLimits::default());
    CompileRequest { wire: 1, work: CompileWork::Outline, code: CodeKind::Plain, sandbox, limits, threads: 1 }
}

/// Each message as it should be, with as many descriptors.
pub fn seeds() -> Vec<Vec<u8>> {
    fn seed<M: Serialize>(kind: u8, descriptors: u8, message: &M) -> Vec<u8> {
        let mut seed = vec![kind, descriptors, 0];
        seed.extend(postcard::to_stdvec(message).expect("encodes"));
        seed
    }
    let text = || "it says \u{1b}[31m".to_string();
    let kind = CompileLimit::Memory;
    let refusals = [
        CompileError::Invalid { message: text() },
        CompileError::UnknownImports { imports: vec![text(), text()] },
        CompileError::CompileLimit {
            kind,
            limit: 1,
            seen: 2,
            function: None,
            offset: Some(3),
            others: vec![ExceededLimit::new(kind, 4, 5)],
        },
        CompileError::UnknownTask { module: text(), name: text(), known: vec![text()] },
    ];
    let mut seeds: Vec<_> =
        refusals.into_iter().map(|refusal| seed(3, 0, &CompileReply::Err(refusal))).collect();
    seeds.extend([
        seed(3, 0, &CompileReply::Ok(())),
        seed(3, 1, &CompileReply::Ok(())),
        seed(0, 0, &FromWorkerControl::Ready { wire: u64::MAX, sandbox: report(), stops_by_signal: true }),
        seed(0, 1, &FromWorkerControl::Ready { wire: 1, sandbox: report(), stops_by_signal: false }),
        seed(0, 0, &FromWorkerControl::CannotLock { wire: 1, message: text() }),
        seed(1, 2, &setup()),
        seed(1, 1, &setup()),
        seed(1, 2, &ToWorkerControl::Module { module: ModuleId(1), code: CodeKind::Metered }),
        seed(1, 0, &ToWorkerControl::Forget { modules: vec![ModuleId(1)], shares: vec![ShareId(2)] }),
        seed(1, 0, &ToWorkerControl::Interrupt { run: 300 }),
        seed(1, 0, &ToWorkerControl::Limit { run: 300, cpu_ns: 1_000_000_000 }),
        seed(1, 0, &ToWorkerControl::Sample { run: 300 }),
        seed(1, 0, &reply(Reply::Bytes(Chunk(vec![7; 300])))),
        seed(1, 0, &reply(Reply::End)),
        seed(1, 0, &reply(Reply::Failed { os_error: Some(5) })),
        seed(2, 3, &request()),
        vec![0, 0, 253, 0],
    ]);
    seeds
}

fn reply(reply: Reply) -> ToWorkerControl {
    ToWorkerControl::Reply { run: 300, number: 2, reply }
}
