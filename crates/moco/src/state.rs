//! The state as named tensors, with the official names.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use moco_params::ParamError;

use crate::error::{During, MocoError};
use crate::queue::Queue;
use crate::step::{Moco, next_generation};

/// Named tensors: `encoder_q.*` and `encoder_k.*` (torchvision's names, `fc.*` for the head), `queue`
/// `[C, K]`, `queue_ptr` `[1]` i64, `sgd.*` (momentum buffers by parameter name; `lars.*`
/// where that is the optimizer).
pub type MocoState = BTreeMap<String, Tensor>;

impl Moco {
    /// The state. The tensors share memory with the model: copy or write them before the next step.
    ///
    /// # Errors
    /// If candle fails.
    pub fn state(&self) -> Result<MocoState, MocoError> {
        let mut state = MocoState::new();
        for (prefix, branch) in [("encoder_q", &self.encoder_q), ("encoder_k", &self.encoder_k)] {
            for (name, tensor, _) in branch.stores().into_iter().flat_map(|store| store.iter()) {
                state.insert(format!("{prefix}.{name}"), tensor.clone());
            }
        }
        for (name, tensor) in self.optimizer.state() {
            state.insert(format!("{}.{name}", self.optimizer.name()), tensor.clone());
        }
        state.insert("queue".into(), self.queue.keys().clone());
        let ptr = i64::try_from(self.queue.ptr()).unwrap_or(i64::MAX);
        state.insert("queue_ptr".into(), Tensor::new(&[ptr], &Device::Cpu).during("queue_ptr")?);
        Ok(state)
    }

    /// Replaces the state by copies of these tensors and the number of steps done.
    ///
    /// # Errors
    /// If a tensor is missing, superfluous or of another shape; then the model is not usable any more.
    pub fn load_state(&mut self, state: &MocoState, global_step: u64) -> Result<(), MocoError> {
        let expected = self.state()?;
        self.generation = next_generation();
        if let Some(name) = state.keys().find(|name| !expected.contains_key(*name)) {
            return Err(ParamError::Missing { name: format!("{name} (in this model)") }.into());
        }
        for (prefix, branch) in
            [("encoder_q", &mut self.encoder_q), ("encoder_k", &mut self.encoder_k)]
        {
            for store in branch.stores_mut() {
                store.load(|name| state.get(&format!("{prefix}.{name}")))?;
            }
        }
        let prefix = self.optimizer.name();
        self.optimizer.load(&|name| state.get(&format!("{prefix}.{name}")))?;
        let get = |name: &str| {
            state.get(name).ok_or_else(|| ParamError::Missing { name: name.to_owned() })
        };
        let keys = get("queue")?;
        let own = self.queue.keys();
        if keys.dims() != own.dims() || keys.dtype() != own.dtype() {
            return Err(ParamError::Mismatch {
                name: "queue".into(),
                expected: own.dims().to_vec(),
                expected_dtype: own.dtype(),
                got: keys.dims().to_vec(),
                got_dtype: keys.dtype(),
            }
            .into());
        }
        let ptr = get("queue_ptr")?.to_vec1::<i64>().during("queue_ptr")?;
        let ptr = ptr.first().and_then(|ptr| usize::try_from(*ptr).ok()).unwrap_or(usize::MAX);
        self.queue = Queue::from_parts(keys, ptr)?.to_device(self.queue.keys().device())?;
        self.global_step = global_step;
        Ok(())
    }
}
