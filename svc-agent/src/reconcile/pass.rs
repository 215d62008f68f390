//! One pass: installs what is wanted, then retires what is not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use svc_common::maps::spec;

use super::Report;
use super::programmed::Programmed;
use super::state::State;
use crate::apply::{AnyFrontendKey, ApplyError, MapOp, Store};
use crate::compile::allocator::{Full, Resource};
use crate::compile::compile;
use crate::compile::image::Image;
use crate::plan::{self, Plan};
use crate::resolve::{AddressFamily, Desired, PortKey, ResolvedPort, ServiceName};

/// The images that the ports of one service shall have.
type Targets = BTreeMap<PortKey, Image>;

/// Why a service is not brought to what is wanted.
enum Trouble {
    /// There is not enough room.
    Full(Full),
    /// Something would be removed that may be wanted by an input that is not known yet.
    Held,
    /// A write failed.
    Failed(ApplyError),
}

/// One pass over all that changed.
pub struct Pass<'a, S> {
    /// Where to write.
    pub store: &'a mut S,
    /// What is known to be there.
    pub state: &'a mut State,
    /// Where to tell it.
    pub programmed: &'a Programmed,
    /// What happened.
    pub report: Report,
}

impl<S: Store> Pass<'_, S> {
    /// Runs the pass.
    pub fn run(mut self, desired: &Desired) -> Report {
        self.state.adopt(desired, self.programmed);
        let changes = self.state.changes(desired);
        let mut installed = Vec::new();
        for (name, ports) in changes.wanted {
            match self.install(name, ports, desired.complete) {
                Ok(targets) => installed.push((name, ports, targets)),
                Err(Trouble::Full(full)) => self.report.refused.push((name.clone(), full.to_string())),
                Err(Trouble::Held) => self.report.held.push(name.clone()),
                Err(Trouble::Failed(error)) => self.report.failed.push((name.clone(), message(&error))),
            }
        }
        self.write_addresses(true);
        if self.state.epoch_due {
            // A packet that took its slot before the swap reads the backend after it.
            self.store.settle();
        }
        for (name, ports, targets) in installed {
            match self.retire(name, &targets) {
                Ok(()) => self.finish(name, Some(ports)),
                Err(error) => self.report.failed.push((name.clone(), message(&error))),
            }
        }
        for name in changes.gone {
            match self.retire(&name, &Targets::new()) {
                Ok(()) => self.finish(&name, None),
                Err(error) => self.report.failed.push((name, message(&error))),
            }
        }
        if desired.complete
            && let Err(error) = self.retire_leftovers()
        {
            self.report.error = Some(message(&error));
        }
        self.write_addresses(false);
        if self.state.epoch_due {
            match self.write(&[MapOp::RaiseEpoch]) {
                Ok(()) => self.state.epoch_due = false,
                Err(error) => self.report.error = Some(message(&error)),
            }
        }
        self.state.room.end_pass();
        self.report
    }

    /// Brings all that a service wants into the maps, or nothing of it if it does not fit.
    fn install(&mut self, name: &ServiceName, ports: &[ResolvedPort], complete: bool) -> Result<Targets, Trouble> {
        let targets = match self.compile(name, ports, complete) {
            Ok(targets) => targets,
            Err(trouble) => {
                self.state.room.undo();
                return Err(trouble);
            }
        };
        self.state.room.commit();
        let mut result = Ok(());
        for (key, target) in &targets {
            // After a failure only what was taken is sorted out.
            let mut image = self.take_image(name, key).unwrap_or_else(|| Image::new(key.family, target.service));
            let mut plan = if result.is_ok() { plan::install(&image, target) } else { Plan::default() };
            let is_anothers = |key| self.state.owners.of(key).is_some_and(|owner| owner != target.service);
            plan.disturbs |= !plan.ops.is_empty() && target.frontends.keys().any(is_anothers);
            let carried_out = self.carry_out(&mut image, &plan, Some(target));
            result = result.and(carried_out);
            self.put_image(name, key, image);
        }
        result.map(|()| targets).map_err(Trouble::Failed)
    }

    /// The images of all ports of a service, if there is room for them and nothing speaks against it.
    fn compile(&mut self, name: &ServiceName, ports: &[ResolvedPort], complete: bool) -> Result<Targets, Trouble> {
        let state = &mut *self.state;
        let known = state.services.entry(name.clone()).or_default();
        known.done = None;
        let mut targets = Targets::new();
        for port in ports {
            if !targets.contains_key(&port.key) {
                let image = compile(port, known.ports.get(&port.key), &mut state.room).map_err(Trouble::Full)?;
                targets.insert(port.key.clone(), image);
            }
        }
        let frontends = targets.values().flat_map(|target| target.frontends.keys().copied()).collect();
        state.owners.check_room(&frontends, state.capacities.frontends).map_err(Trouble::Full)?;
        for (family, map) in [(AddressFamily::V4, spec::RANGES_V4.name), (AddressFamily::V6, spec::RANGES_V6.name)] {
            let has = |key, range| known.ports.get(key).is_some_and(|image: &Image| image.ranges.contains(range));
            let own = targets.iter().filter(|(key, _)| key.family == family);
            let new = own.flat_map(|(key, target)| target.ranges.iter().filter(move |range| !has(key, range)));
            let (needed, capacity) = (new.count() as u32, state.capacities.ranges);
            let free = capacity.saturating_sub(state.ranges.of(family) as u32);
            if needed > free {
                return Err(Trouble::Full(Full::Elements { map, needed, free, capacity }));
            }
        }
        let removes = |(key, image)| !plan::retire(image, targets.get(key)).ops.is_empty();
        if !complete && known.inherited && known.ports.iter().any(removes) {
            return Err(Trouble::Held);
        }
        Ok(targets)
    }

    /// Removes all that a service does not want.
    fn retire(&mut self, name: &ServiceName, targets: &Targets) -> Result<(), ApplyError> {
        let ports = self.state.services.get(name).map(|known| &known.ports);
        let plans: Vec<_> = ports
            .into_iter()
            .flatten()
            .map(|(key, image)| (key.clone(), plan::retire(image, targets.get(key))))
            .filter(|(_, plan)| !plan.ops.is_empty())
            .collect();
        for (key, plan) in plans {
            if let Some(mut image) = self.take_image(name, &key) {
                let carried_out = self.carry_out(&mut image, &plan, targets.get(&key));
                self.put_image(name, &key, image);
                carried_out?;
            }
        }
        Ok(())
    }

    /// Removes what was found at the start and nobody wants.
    fn retire_leftovers(&mut self) -> Result<(), ApplyError> {
        while let Some((service, mut leftover)) = self.state.leftovers.pop_first() {
            let plan = plan::retire(&leftover.image, None);
            if let Err(error) = self.carry_out(&mut leftover.image, &plan, None) {
                self.state.leftovers.insert(service, leftover);
                return Err(error);
            }
        }
        while let Some(&index) = self.state.strays.first() {
            self.write(&[MapOp::SetSelection { index, value: svc_common::maps::Selection::REJECT }])?;
            self.state.strays.remove(&index);
            self.state.room.free(Resource::Selection(index));
        }
        Ok(())
    }

    /// Writes the rows of addresses that have got their first frontend, or changed; and, unless this is the part that
    /// `install`s, removes those of addresses that have lost their last one.
    fn write_addresses(&mut self, install: bool) {
        let plan = self.state.owners.addresses.plan(install);
        let result = if plan.is_empty() { Ok(()) } else { self.write(&plan) };
        let done = result.as_ref().map_or_else(|error| error.index, |()| plan.len());
        let addresses = &mut self.state.owners.addresses;
        plan.iter().take(done).for_each(|op| addresses.record(op));
        addresses.settle();
        if let Err(error) = result {
            self.report.error = Some(message(&error));
        }
    }

    /// Carries out a plan and records what of it was done, no more and no less.
    fn carry_out(&mut self, image: &mut Image, plan: &Plan, target: Option<&Image>) -> Result<(), ApplyError> {
        let mut taken = image.resources();
        taken.extend(target.map(Image::resources).unwrap_or_default());
        self.state.epoch_due |= plan.disturbs;
        let result = if plan.ops.is_empty() { Ok(()) } else { self.write(&plan.ops) };
        let done = result.as_ref().map_or_else(|error| error.index, |()| plan.ops.len());
        for op in plan.ops.iter().take(done) {
            image.record(op, target);
            match *op {
                MapOp::SetFrontend { key, value } => {
                    if let Some(loser) = self.state.owners.insert(key, &value) {
                        self.forget_frontend(loser, &key);
                    }
                }
                MapOp::DeleteFrontend { key } => self.state.owners.remove(&key),
                MapOp::SetBackend { .. } | MapOp::WriteRows { .. } | MapOp::SetSelection { .. } => {}
                MapOp::SetRange { range, .. } => *self.state.ranges.of_mut(AddressFamily::of(range.addr())) += 1,
                MapOp::DeleteRange { range, .. } => *self.state.ranges.of_mut(AddressFamily::of(range.addr())) -= 1,
                MapOp::SetAddress { .. } | MapOp::DeleteAddress { .. } => {}
                MapOp::ClearCounters { .. } | MapOp::RaiseEpoch => {}
            }
        }
        let kept = if image.is_empty() { BTreeSet::new() } else { image.resources() };
        taken.difference(&kept).for_each(|&resource| self.state.room.free(resource));
        result
    }

    /// Writes, and counts what was written.
    fn write(&mut self, ops: &[MapOp]) -> Result<(), ApplyError> {
        let result = self.store.apply(ops);
        self.report.writes += result.as_ref().map_or_else(|error| error.index, |()| ops.len());
        result
    }

    /// Takes the image of a port out, to change it.
    fn take_image(&mut self, name: &ServiceName, key: &PortKey) -> Option<Image> {
        self.state.services.get_mut(name)?.ports.remove(key)
    }

    /// Puts the image of a port back, unless nothing is left of it.
    fn put_image(&mut self, name: &ServiceName, key: &PortKey, image: Image) {
        if image.is_empty() {
            self.programmed.set(key, None);
        } else {
            self.programmed.set(key, Some(&image));
            self.state.services.entry(name.clone()).or_default().ports.insert(key.clone(), image);
        }
    }

    /// Records that a frontend of a service id was overwritten by another service.
    fn forget_frontend(&mut self, service: u32, key: &AnyFrontendKey) {
        let image = match self.programmed.service_port(service) {
            Some(port) => {
                let name = ServiceName::new(&*port.namespace, &*port.name);
                self.state.services.get_mut(&name).and_then(|known| known.ports.get_mut(&port))
            }
            None => self.state.leftovers.get_mut(&service).map(|leftover| &mut leftover.image),
        };
        if let Some(image) = image {
            image.frontends.remove(key);
        }
    }

    /// Records that a service is as wanted, or gone.
    fn finish(&mut self, name: &ServiceName, wanted: Option<&Arc<Vec<ResolvedPort>>>) {
        self.state.unfinished.remove(name);
        match wanted {
            Some(ports) => {
                let known = self.state.services.entry(name.clone()).or_default();
                (known.done, known.inherited) = (Some(Arc::clone(ports)), false);
                self.report.changed += 1;
            }
            None => drop(self.state.services.remove(name)),
        }
    }
}

/// The text of an error with its causes.
fn message(error: &ApplyError) -> String {
    format!("write {} of the plan failed: {:#}", error.index, error.source)
}
