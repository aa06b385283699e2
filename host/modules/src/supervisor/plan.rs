//! What a supervisor learns, and what it can have done: the words of [`step`](super::step).

use std::time::Duration;

use privatix_plugin_api::message::ClientKey;
use uuid::Uuid;

use crate::lifecycle::NotUp;
use crate::problem::Problem;
use crate::registry::State;

/// Time since the supervisor began.
pub(super) type Moment = Duration;

/// What has to be known of a package that has passed all checks.
pub(super) trait Package: Clone {
    /// Its product.
    fn product(&self) -> Uuid;
    /// Whether both are the same module with the same templates; an offering template that only one
    /// has does not count.
    fn same_as(&self, other: &Self) -> bool;
    /// Whether its offering template is there.
    fn can_sell(&self) -> bool;
}

/// What the plugins directory has of a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) enum Files {
    /// Nothing.
    #[default]
    None,
    /// Templates, and neither a library nor a manifest.
    Templates,
    /// A library or a manifest. The number is another one whenever the files are others.
    Module(u64),
}

/// What has happened.
#[derive(Debug, Clone)]
pub(super) enum Event<P> {
    /// These files are there now.
    Files(Files),
    /// The operator has said something of a module, or a product id was given back.
    Nudged,
    /// Time has passed.
    Woken,
    /// The host goes down.
    Down,
    /// To [`Ask::Standing`].
    Standing(Result<Standing, Problem>),
    /// To [`Ask::Examine`].
    Examined(Result<P, Problem>),
    /// To [`Ask::Claim`].
    Claimed(Result<Claim, Problem>),
    /// To [`Ask::Register`].
    Registered(Result<(), NotUp>),
    /// To [`Ask::Prove`].
    Proved(Result<(), NotUp>),
    /// To [`Ask::Serves`].
    Served(Result<Vec<ClientKey>, Problem>),
    /// To [`Ask::BringUp`].
    BroughtUp {
        /// Whether it serves.
        outcome: Result<(), NotUp>,
        /// Whether any library of the module was created in this process so far.
        created: bool,
    },
    /// To [`Ask::MakeWay`] and [`Ask::TakeDown`].
    IsDown,
}

/// Whether the operator lets a module run.
#[derive(Debug, Clone)]
pub(super) enum Standing {
    /// Nothing but its files decides.
    Free,
    /// It is switched off.
    SwitchedOff(Problem),
    /// The product of what runs belongs to another module.
    Lost(Problem),
}

/// Whose a package's product is.
#[derive(Debug, Clone)]
pub(super) enum Claim {
    /// The module's from now on.
    Ours {
        /// How often in a row the host has died while this library came up.
        deaths: u32,
    },
    /// Another module's.
    Taken(Problem),
    /// Not claimed: the library is set aside.
    SetAside(Problem),
}

/// What is to be done at once, and has no result.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Effect<P> {
    /// Show the module in this state. A package makes its version the one that is shown.
    Show(State, Option<Problem>, Option<P>),
    /// Show what is the matter with other files than those of what runs.
    ShowCandidate(State, Problem, Option<P>),
    /// There are no other files, or they are those of what runs.
    ClearCandidate,
    /// Forget the module: nothing of it was ever in this process.
    Forget,
    /// Give a product id back.
    Release(Uuid),
    /// Route to what has just come up.
    Open(P),
    /// Note that a new version did not come up in the place of the old one.
    Complain(Problem),
}

/// What is to be done and answered.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Ask<P> {
    /// Whether the module may run, and whose the product of what runs is.
    Standing(Option<Uuid>),
    /// Examine the files.
    Examine,
    /// Take the product for the module.
    Claim(P),
    /// Register what runs with the template that has arrived.
    Register(P),
    /// Load the library in another process, if it is not set aside.
    Prove(P),
    /// Which channels what runs is serving.
    Serves,
    /// Load, create, configure, tell of the channels. Each of those given has to start.
    BringUp(P, Vec<ClientKey>),
    /// Take what runs down, for another version to take over.
    MakeWay,
    /// Take what runs down.
    TakeDown,
}

/// The actions of a step, in their order.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Actions<P> {
    /// First these.
    pub(super) effects: Vec<Effect<P>>,
    /// Then this. Without it, the next thing to do is to wait until [`Life::wake`].
    pub(super) ask: Option<Ask<P>>,
}
