//! The store and its errors.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};

/// Gradients by parameter name.
pub type Gradients = BTreeMap<String, Tensor>;

/// The role of a tensor in training.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Has a gradient; changed by the optimizer or the momentum update.
    Parameter,
    /// Running statistics; changed by forward passes in training mode.
    Buffer,
}

/// A store was asked for what it does not have, or given what does not fit.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ParamError {
    /// No tensor of this name.
    #[error("no tensor named `{name}`")]
    Missing {
        /// The name asked for.
        name: String,
    },
    /// The name is taken.
    #[error("two tensors named `{name}`")]
    Duplicate {
        /// The name.
        name: String,
    },
    /// A value of another shape or type.
    #[error("`{name}` is {expected:?} {expected_dtype:?}, got {got:?} {got_dtype:?}")]
    Mismatch {
        /// The tensor.
        name: String,
        /// Its shape.
        expected: Vec<usize>,
        /// Its type.
        expected_dtype: DType,
        /// The shape of the new value.
        got: Vec<usize>,
        /// The type of the new value.
        got_dtype: DType,
    },
    /// candle failed on a tensor.
    #[error("`{name}`: {source}")]
    Candle {
        /// The tensor.
        name: String,
        /// candle's error.
        source: candle_core::Error,
    },
}

/// Named tensors in name order.
#[derive(Debug, Default)]
pub struct ParamStore {
    entries: BTreeMap<String, (Tensor, Role)>,
}

impl ParamStore {
    /// Adds a tensor.
    ///
    /// # Errors
    /// If the name is taken.
    pub fn insert(
        &mut self,
        name: impl Into<String>,
        tensor: Tensor,
        role: Role,
    ) -> Result<(), ParamError> {
        let name = name.into();
        if self.entries.contains_key(&name) {
            return Err(ParamError::Duplicate { name });
        }
        self.entries.insert(name, (tensor, role));
        Ok(())
    }

    /// The tensor of this name.
    ///
    /// # Errors
    /// If there is none.
    pub fn get(&self, name: &str) -> Result<&Tensor, ParamError> {
        let entry = self.entries.get(name);
        Ok(&entry.ok_or_else(|| ParamError::Missing { name: name.to_owned() })?.0)
    }

    /// Replaces the value of a tensor by a copy on the same device, so that nothing else shares its memory.
    ///
    /// # Errors
    /// If there is no such tensor or the shape or type differs.
    pub fn set(&mut self, name: &str, value: &Tensor) -> Result<(), ParamError> {
        let old = self.get(name)?;
        if old.dims() != value.dims() || old.dtype() != value.dtype() {
            return Err(ParamError::Mismatch {
                name: name.to_owned(),
                expected: old.dims().to_vec(),
                expected_dtype: old.dtype(),
                got: value.dims().to_vec(),
                got_dtype: value.dtype(),
            });
        }
        let failed = |source| ParamError::Candle { name: name.to_owned(), source };
        let copy = own(name, &value.to_device(old.device()).map_err(failed)?)?;
        if let Some(entry) = self.entries.get_mut(name) {
            entry.0 = copy;
        }
        Ok(())
    }

    /// Replaces every value from `value_of(name)`.
    ///
    /// # Errors
    /// If a value is missing or does not fit; then some values may have been replaced.
    pub fn load<'a>(
        &mut self,
        value_of: impl Fn(&str) -> Option<&'a Tensor>,
    ) -> Result<(), ParamError> {
        let names: Vec<String> = self.entries.keys().cloned().collect();
        for name in names {
            let value =
                value_of(&name).ok_or_else(|| ParamError::Missing { name: name.clone() })?;
            self.set(&name, value)?;
        }
        Ok(())
    }

    /// All tensors, parameters and buffers, in name order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor, Role)> {
        self.entries.iter().map(|(name, (tensor, role))| (name.as_str(), tensor, *role))
    }

    /// The parameters in name order.
    pub fn parameters(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.of_role(Role::Parameter)
    }

    /// The buffers in name order.
    pub fn buffers(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.of_role(Role::Buffer)
    }

    /// Type and device of the parameters, which they share; `None` without any.
    #[must_use]
    pub fn dtype_and_device(&self) -> Option<(DType, &Device)> {
        self.parameters().next().map(|(_, tensor)| (tensor.dtype(), tensor.device()))
    }

    /// Moves everything to a device.
    ///
    /// # Errors
    /// If the device has no room; then some tensors may have been moved.
    pub fn to_device(&mut self, device: &Device) -> Result<(), ParamError> {
        for (name, (tensor, _)) in &mut self.entries {
            let moved = tensor.to_device(device);
            *tensor = moved.map_err(|source| ParamError::Candle { name: name.clone(), source })?;
        }
        Ok(())
    }

    fn of_role(&self, wanted: Role) -> impl Iterator<Item = (&str, &Tensor)> {
        self.iter()
            .filter(move |(_, _, role)| *role == wanted)
            .map(|(name, tensor, _)| (name, tensor))
    }

    /// A store with the same values in memory of its own. candle's `clone` and `detach` would share the
    /// memory, so that an in-place update of one store would change the other.
    ///
    /// # Errors
    /// If candle cannot copy.
    pub fn deep_copy(&self) -> Result<Self, ParamError> {
        let mut copy = Self::default();
        for (name, tensor, role) in self.iter() {
            copy.insert(name, own(name, tensor)?, role)?;
        }
        Ok(copy)
    }
}

fn own(name: &str, tensor: &Tensor) -> Result<Tensor, ParamError> {
    let copy = tensor.contiguous().and_then(|t| t.copy()).map(|t| t.detach());
    copy.map_err(|source| ParamError::Candle { name: name.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn store() -> ParamStore {
        let mut store = ParamStore::default();
        let tensor = |x: f32| Tensor::new(&[x, x], &Device::Cpu).unwrap();
        store.insert("b.weight", tensor(2.0), Role::Parameter).unwrap();
        store.insert("a.running_mean", tensor(1.0), Role::Buffer).unwrap();
        store.insert("a.bias", tensor(3.0), Role::Parameter).unwrap();
        store
    }

    fn value(store: &ParamStore, name: &str) -> Vec<f32> {
        store.get(name).unwrap().to_vec1().unwrap()
    }

    #[test]
    fn order_is_by_name_and_roles_are_kept_apart() {
        let store = store();
        let names = |tensors: Vec<(&str, &Tensor)>| -> Vec<String> {
            tensors.iter().map(|(name, _)| (*name).to_owned()).collect()
        };
        assert_eq!(names(store.parameters().collect()), ["a.bias", "b.weight"]);
        assert_eq!(names(store.buffers().collect()), ["a.running_mean"]);
        assert_eq!(store.iter().count(), 3);
    }

    #[test]
    fn a_deep_copy_shares_no_memory() {
        let original = store();
        let copy = original.deep_copy().unwrap();
        let ones = Tensor::new(&[9_f32, 9.0], &Device::Cpu).unwrap();
        original.get("b.weight").unwrap().slice_set(&ones, 0, 0).unwrap();
        assert_eq!(value(&original, "b.weight"), [9.0, 9.0]);
        assert_eq!(value(&copy, "b.weight"), [2.0, 2.0]);
    }

    #[test]
    fn set_and_load_copy_and_check() {
        let mut store = store();
        let new = Tensor::new(&[5_f32, 6.0], &Device::Cpu).unwrap();
        store.set("b.weight", &new).unwrap();
        new.slice_set(&Tensor::new(&[0_f32, 0.0], &Device::Cpu).unwrap(), 0, 0).unwrap();
        assert_eq!(value(&store, "b.weight"), [5.0, 6.0]);
        let wide = Tensor::new(&[1_f32, 2.0, 3.0], &Device::Cpu).unwrap();
        let message = store.set("b.weight", &wide).unwrap_err().to_string();
        assert_eq!(message, "`b.weight` is [2] F32, got [3] F32");
        let message =
            store.load(|name| (name != "b.weight").then_some(&new)).unwrap_err().to_string();
        assert_eq!(message, "no tensor named `b.weight`");
        let message = store.insert("a.bias", wide, Role::Buffer).unwrap_err().to_string();
        assert_eq!(message, "two tensors named `a.bias`");
    }
}
