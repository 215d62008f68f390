//! Who has which address and which port.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::model::{Protocol, ServiceName};

/// Why somebody has something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// It was given by a controller, now or before.
    Remembered,
    /// The Service names it.
    Named,
    /// The Service names it as its health-check port.
    HealthCheck,
}

/// Everything that is taken.
#[derive(Debug, Default)]
pub struct Table {
    ips: HashMap<IpAddr, (ServiceName, Holder)>,
    ports: HashMap<(u16, Protocol), (ServiceName, Holder)>,
    /// In how many protocols a number is in use.
    numbers: HashMap<u16, usize>,
}

impl Table {
    /// Gives an address to a Service; a Service may name its own several times.
    ///
    /// # Errors
    /// Who has it.
    pub fn take_ip(&mut self, ip: IpAddr, name: &ServiceName, holder: Holder) -> Result<(), (ServiceName, Holder)> {
        match self.ips.get(&ip) {
            Some((owner, Holder::Named)) if owner == name && holder == Holder::Named => Ok(()),
            Some(taken) => Err(taken.clone()),
            None => {
                self.ips.insert(ip, (name.clone(), holder));
                Ok(())
            }
        }
    }

    /// Gives a port in one protocol to a Service.
    ///
    /// # Errors
    /// Who has it.
    pub fn take_port(
        &mut self,
        number: u16,
        protocol: Protocol,
        name: &ServiceName,
        holder: Holder,
    ) -> Result<(), (ServiceName, Holder)> {
        if let Some(taken) = self.ports.get(&(number, protocol)) {
            return Err(taken.clone());
        }
        self.ports.insert((number, protocol), (name.clone(), holder));
        *self.numbers.entry(number).or_default() += 1;
        Ok(())
    }

    /// Gives a port that nobody has in any protocol to a Service, in all of them; false if anybody has it.
    pub fn take_number(&mut self, number: u16, name: &ServiceName) -> bool {
        if self.has_number(number) {
            return false;
        }
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
            let _free = self.take_port(number, protocol, name, Holder::Remembered);
        }
        true
    }

    /// Whether anybody has an address.
    pub fn has_ip(&self, ip: IpAddr) -> bool {
        self.ips.contains_key(&ip)
    }

    /// Whether anybody has a port in any protocol.
    pub fn has_number(&self, number: u16) -> bool {
        self.numbers.contains_key(&number)
    }

    /// How many addresses are taken.
    pub fn ips(&self) -> usize {
        self.ips.len()
    }

    /// How many port numbers are taken.
    pub fn numbers(&self) -> usize {
        self.numbers.len()
    }
}
