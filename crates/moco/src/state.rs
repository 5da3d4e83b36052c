//! The state as named tensors, with the official names.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use moco_optim::Optimizer;
use moco_params::ParamError;

use crate::encoder_with_head::EncoderWithHead;
use crate::error::{During, MocoError};
use crate::model::{Moco, next_generation};
use crate::queue::Queue;

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
        insert_encoder(&mut state, "encoder_q", &self.encoder_q);
        insert_encoder(&mut state, "encoder_k", &self.encoder_k);
        insert_optimizer(&mut state, self.optimizer.name(), self.optimizer.as_ref());
        state.insert("queue".into(), self.queue.keys().clone());
        let ptr = i64::try_from(self.queue.ptr()).unwrap_or(i64::MAX);
        state.insert("queue_ptr".into(), Tensor::new(&[ptr], &Device::Cpu).during("queue_ptr")?);
        Ok(state)
    }

    /// Replaces the state by copies of these tensors, and the number of steps done.
    ///
    /// # Errors
    /// If a tensor is missing, unknown or of another shape; then the model is not usable any more.
    pub fn load_state(&mut self, state: &MocoState, global_step: u64) -> Result<(), MocoError> {
        let reader = StateReader::new(state, &self.state()?)?;
        self.generation = next_generation();
        reader.load_encoder("encoder_q", &mut self.encoder_q)?;
        reader.load_encoder("encoder_k", &mut self.encoder_k)?;
        let prefix = self.optimizer.name();
        self.optimizer.load(&|name| state.get(&format!("{prefix}.{name}")))?;
        let keys = reader.get("queue")?;
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
        let ptr = reader.get("queue_ptr")?.to_vec1::<i64>().during("queue_ptr")?;
        let ptr = ptr.first().and_then(|ptr| usize::try_from(*ptr).ok()).unwrap_or(usize::MAX);
        self.queue = Queue::from_parts(keys, ptr)?.to_device(self.device())?;
        self.global_step = global_step;
        Ok(())
    }
}

/// Adds an encoder's tensors under a prefix.
pub(crate) fn insert_encoder(state: &mut MocoState, prefix: &str, encoder: &EncoderWithHead) {
    for (name, tensor, _) in encoder.stores().into_iter().flat_map(|store| store.iter()) {
        state.insert(format!("{prefix}.{name}"), tensor.clone());
    }
}

/// Adds an optimizer's tensors under a prefix.
pub(crate) fn insert_optimizer(state: &mut MocoState, prefix: &str, optimizer: &dyn Optimizer) {
    for (name, tensor) in optimizer.state() {
        state.insert(format!("{prefix}.{name}"), tensor.clone());
    }
}

/// A state that is being loaded, and holds no tensor that the model lacks.
pub(crate) struct StateReader<'a>(&'a MocoState);

impl<'a> StateReader<'a> {
    /// # Errors
    /// If the state has a tensor that `expected` lacks.
    pub(crate) fn new(state: &'a MocoState, expected: &MocoState) -> Result<Self, MocoError> {
        match state.keys().find(|name| !expected.contains_key(*name)) {
            Some(name) => Err(MocoError::UnknownTensor { name: name.clone() }),
            None => Ok(Self(state)),
        }
    }

    pub(crate) fn get(&self, name: &str) -> Result<&'a Tensor, MocoError> {
        let missing = || ParamError::Missing { name: name.to_owned() };
        Ok(self.0.get(name).ok_or_else(missing)?)
    }

    /// Copies the tensors under a prefix into an encoder.
    pub(crate) fn load_encoder(
        &self,
        prefix: &str,
        encoder: &mut EncoderWithHead,
    ) -> Result<(), MocoError> {
        for store in encoder.stores_mut() {
            store.load(|name| self.0.get(&format!("{prefix}.{name}")))?;
        }
        Ok(())
    }
}
