//! What the agent provides to the control socket.

use std::ops::ControlFlow;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use super::Catalog;
use super::api::{
    Backend, Device, Event, EventFilter, Flow, FlowFilter, ObjectFilter, Service, ServiceEndpoints, Status, Trace,
    TraceRequest,
};
use crate::sources::Snapshot;

/// The agent as the control socket sees it.
///
/// Every call may block (it may read maps): the server makes it on a thread where that is allowed. Filters are there
/// to save work; the server applies them once more, so an implementation may ignore them. Order of the answers is kept.
pub trait View: Send + Sync + 'static {
    /// The agent, its devices, maps and counters.
    ///
    /// # Errors
    /// If a map cannot be read; likewise for the others.
    fn status(&self) -> anyhow::Result<Status>;

    /// The Services that are programmed, and those that were refused.
    ///
    /// # Errors
    /// See [`View::status`].
    fn services(&self, filter: &ObjectFilter) -> anyhow::Result<Vec<Service>>;

    /// The endpoints of each Service.
    ///
    /// # Errors
    /// See [`View::status`].
    fn endpoints(&self, filter: &ObjectFilter) -> anyhow::Result<Vec<ServiceEndpoints>>;

    /// The backends as programmed.
    ///
    /// # Errors
    /// See [`View::status`].
    fn backends(&self, filter: &ObjectFilter) -> anyhow::Result<Vec<Backend>>;

    /// Calls `visit` with one connection after the other until it breaks. There may be hundreds of thousands, and
    /// `visit` waits for slow clients: no lock that the agent needs may be held meanwhile.
    ///
    /// # Errors
    /// See [`View::status`].
    fn flows(&self, filter: &FlowFilter, visit: &mut dyn FnMut(Flow) -> ControlFlow<()>) -> anyhow::Result<()>;

    /// What happens to packets and connections from now on, until the receiver is dropped.
    ///
    /// # Errors
    /// See [`View::status`].
    fn events(&self, filter: EventFilter) -> anyhow::Result<mpsc::Receiver<Arc<Event>>>;

    /// The objects of the sources, as the maps follow them.
    fn snapshots(&self) -> watch::Receiver<Arc<Snapshot>>;

    /// The devices that the agent manages, and those that it knows for their addresses.
    ///
    /// # Errors
    /// See [`View::status`].
    fn devices(&self) -> anyhow::Result<Vec<Device>>;

    /// The objects of the sources.
    fn catalog(&self) -> Catalog;

    /// What the loaded programs would do with a packet; changes nothing of the datapath.
    ///
    /// # Errors
    /// If the request makes no sense here, or a copy of the programs cannot be loaded.
    fn trace(&self, _request: &TraceRequest) -> anyhow::Result<Trace> {
        anyhow::bail!("there are no programs to ask")
    }
}
