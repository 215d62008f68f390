//! What a server does wrong.

use std::time::Duration;

/// Faults of one answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// None.
    None,
    /// Nobody listens.
    Refuse,
    /// No answer, ever.
    Hang,
    /// An error status with a page of HTML.
    Html(u16),
    /// A page of HTML with status 200.
    HtmlOk,
    /// The answer breaks off after so many bytes.
    Cut(usize),
    /// The answer ends after so many bytes, as if it were whole.
    End(usize),
    /// A list of nothing.
    Empty,
    /// The server is so many versions behind and does not know.
    Behind(u64),
    /// A watch from a version that is gone.
    Gone,
    /// A watch that says so in an event.
    GoneLater,
    /// A watch that tells nothing any more.
    Silent,
    /// A watch that ends at once, in good order.
    Brief,
    /// A watch that tells everything twice.
    Twice,
    /// A watch that tells older events again later.
    Again,
    /// A watch that swaps neighbours.
    Swap,
    /// A watch that leaves one of so many events out.
    Skip(u64),
    /// A watch with a line of garbage.
    Garbage,
}

impl Fault {
    /// All of them; those that nobody can notice but by listing again come last.
    pub const ALL: [Self; 21] = [
        Self::Refuse,
        Self::Hang,
        Self::Html(500),
        Self::Html(503),
        Self::Html(429),
        Self::Html(404),
        Self::HtmlOk,
        Self::Cut(300),
        Self::Cut(20_000),
        Self::End(300),
        Self::Empty,
        Self::Behind(7),
        Self::Gone,
        Self::GoneLater,
        Self::Brief,
        Self::Twice,
        Self::Again,
        Self::Swap,
        Self::Garbage,
        Self::Silent,
        Self::Skip(3),
    ];
}

/// How often watches that have nothing to tell say so.
pub const BOOKMARK: Duration = Duration::from_secs(60);
