//! The test vectors, as two independent programs have made them.

use super::{Fresh, Network};
use serde_json::Value;

pub(super) struct Vector {
    inputs: Value,
    values: Value,
}

pub(super) fn all() -> Vec<Vector> {
    let text = include_str!("../../../tests/vectors/knock-v3.json");
    let file: Value = serde_json::from_str(text).expect("JSON");
    let vectors = file["vectors"].as_array().expect("a list");
    assert_eq!(vectors.len(), 2);
    vectors
        .iter()
        .map(|values| Vector {
            inputs: file["inputs"].clone(),
            values: values.clone(),
        })
        .collect()
}

impl Vector {
    /// An input of both vectors, or a value of this one.
    pub(super) fn hex(&self, name: &str) -> Vec<u8> {
        let value = self.values.get(name).or_else(|| self.inputs.get(name));
        let text = value.and_then(Value::as_str).expect("a value of this name");
        hex::decode(text).expect("hexadecimal")
    }

    pub(super) fn bytes<const N: usize>(&self, name: &str) -> [u8; N] {
        self.hex(name).try_into().expect("the right length")
    }

    pub(super) fn time_ms(&self) -> u64 {
        self.inputs["time_ms"].as_u64().expect("a number")
    }

    pub(super) fn network(&self) -> Network {
        match self.values["network_name"].as_str() {
            None => Network::open(),
            Some(name) => Network::private(name.as_bytes(), &self.bytes("network_secret")).expect("a network"),
        }
    }

    pub(super) fn fresh(&self) -> Fresh {
        Fresh {
            nonce: self.bytes("nonce"),
            ephemeral: self.bytes("ephemeral_secret"),
            flight_key: self.bytes("k_flight"),
        }
    }
}
