//! How an instance is written: for programs, and for people.

use std::fmt;

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use super::model::Instance;
use super::state::State;

/// Writes the fields that readers see by their names, and nothing that only its owner knows.
impl Serialize for Instance {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Instance", 10)?;
        fields.serialize_field("service", self.service())?;
        fields.serialize_field("id", self.id())?;
        fields.serialize_field("version", self.version())?;
        fields.serialize_field("addresses", self.addresses())?;
        fields.serialize_field("ports", self.ports())?;
        fields.serialize_field("metadata", self.metadata())?;
        fields.serialize_field("weight", &self.weight())?;
        fields.serialize_field("state", &self.state())?;
        fields.serialize_field("generation", &self.generation())?;
        fields.serialize_field("host", &self.host())?;
        fields.end()
    }
}

/// One line for a person: `greeter 7c0e… at 10.0.0.1:8080`.
impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.service(), self.id())?;
        match (self.addresses().first(), self.listen()) {
            (Some(address), _) => write!(f, " at {address}")?,
            (None, Some(listen)) => write!(f, " at port {}", listen.port())?,
            (None, None) => {}
        }
        if self.state() != State::Up {
            write!(f, " ({})", self.state())?;
        }
        Ok(())
    }
}
