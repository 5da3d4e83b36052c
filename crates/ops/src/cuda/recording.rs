//! Work as a CUDA graph.
//!
//! What is allocated while the stream records is memory of the graph, and has to be given back before the
//! recording ends: then the graph's memory is as large as a step's, and the step can be replayed. All
//! other tensors that the work touches are held, so that their memory stays theirs.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use candle_core::cuda::cudarc::driver::sys::CUgraphNodeType::{
    CU_GRAPH_NODE_TYPE_MEM_ALLOC, CU_GRAPH_NODE_TYPE_MEM_FREE,
};
use candle_core::cuda::cudarc::driver::sys::{self, CUgraphInstantiate_flags, CUstreamCaptureMode};
use candle_core::cuda::cudarc::driver::{CudaGraph, CudaSlice, CudaStream};
use candle_core::{CudaDevice, Tensor};

use super::device;
use super::driver::driver;
use super::memory::Place;
use super::staging::Pinned;
use crate::error::OpError;
use crate::gpu::Recorded;

/// Room for the tables of a recording; those of ResNet-50 take 40 kB.
const TABLE_BYTES: usize = 4 << 20;

/// A recording in progress.
pub(super) struct Tape {
    stream: Arc<CudaStream>,
    /// Where tensors of the recording itself were allocated.
    own: BTreeSet<u64>,
    /// All others, by where their memory begins.
    held: BTreeMap<u64, Tensor>,
    tables: Pinned,
    used: usize,
}

impl Tape {
    /// Begins to record. The memory of steps that were not recorded goes back to the system, since the
    /// graph cannot use it.
    pub(super) fn begin(op: &'static str, device: &CudaDevice) -> Result<Self, OpError> {
        let stream = device.cuda_stream();
        stream.synchronize().map_err(driver(op))?;
        device::trim(device)?;
        let tables = Pinned::new(op, &stream, TABLE_BYTES)?;
        // Other threads continue to upload images meanwhile.
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        stream.begin_capture(mode).map_err(driver(op))?;
        Ok(Self { stream, own: BTreeSet::new(), held: BTreeMap::new(), tables, used: 0 })
    }

    /// A tensor was allocated.
    pub(super) fn allocated(&mut self, place: Place) {
        self.own.insert(place.memory);
    }

    /// A tensor is used.
    pub(super) fn uses(&mut self, place: Place, x: &Tensor) {
        if !self.own.contains(&place.memory) {
            self.held.entry(place.memory).or_insert_with(|| x.clone());
        }
    }

    /// Each repetition copies these bytes to an address of the device.
    pub(super) fn write(&mut self, op: &'static str, to: u64, bytes: &[u8]) -> Result<(), OpError> {
        self.tables.copy(op, self.used, bytes, to)?;
        self.used += bytes.len().next_multiple_of(16);
        Ok(())
    }

    /// Ends the recording.
    pub(super) fn end(
        self,
        op: &'static str,
        workspace: Option<Rc<CudaSlice<u8>>>,
    ) -> Result<Graph, OpError> {
        let Self { stream, held, tables, .. } = self;
        let graph = stream.end_capture(CUgraphInstantiate_flags(0)).map_err(driver(op))?;
        let graph = graph.ok_or_else(|| failed(op, "nothing was recorded"))?;
        let held = held.into_values().collect();
        let graph = Graph { stream, graph, _held: held, _tables: tables, _workspace: workspace };
        graph.expect_own_memory_back(op)?;
        graph.graph.upload().map_err(driver(op))?;
        Ok(graph)
    }
}

/// Captured work with all that it touches.
pub(super) struct Graph {
    stream: Arc<CudaStream>,
    graph: CudaGraph,
    _held: Vec<Tensor>,
    _tables: Pinned,
    _workspace: Option<Rc<CudaSlice<u8>>>,
}

impl Drop for Graph {
    fn drop(&mut self) {
        // It may be running.
        self.stream.context().record_err(self.stream.synchronize());
    }
}

impl Recorded for Graph {
    fn repeat(&self, op: &'static str) -> Result<(), OpError> {
        self.graph.launch().map_err(driver(op))
    }
}

impl Graph {
    /// Fails if a tensor that was made in the recording outlives it: replays would overwrite it.
    fn expect_own_memory_back(&self, op: &'static str) -> Result<(), OpError> {
        let kinds = self.kinds().map_err(|status| failed(op, &format!("{status:?}")))?;
        let count = |wanted| kinds.iter().filter(|kind| **kind == wanted).count();
        let (made, freed) =
            (count(CU_GRAPH_NODE_TYPE_MEM_ALLOC), count(CU_GRAPH_NODE_TYPE_MEM_FREE));
        if made == freed {
            return Ok(());
        }
        let what = format!(
            "{made} tensors were made and {freed} given back; a recording takes only operations \
             of this crate and keeps none of their results"
        );
        Err(failed(op, &what))
    }

    /// The kind of each node.
    fn kinds(&self) -> Result<Vec<sys::CUgraphNodeType>, sys::CUresult> {
        let checked = |status: sys::CUresult| match status {
            sys::CUresult::CUDA_SUCCESS => Ok(()),
            error => Err(error),
        };
        let graph = self.graph.cu_graph();
        let mut n_nodes = 0;
        // SAFETY: the graph exists; without a place for nodes it returns how many there are.
        checked(unsafe { sys::cuGraphGetNodes(graph, std::ptr::null_mut(), &raw mut n_nodes) })?;
        let mut nodes = vec![std::ptr::null_mut(); n_nodes];
        // SAFETY: there is room for all nodes.
        checked(unsafe { sys::cuGraphGetNodes(graph, nodes.as_mut_ptr(), &raw mut n_nodes) })?;
        let kind = |node: &sys::CUgraphNode| {
            let mut kind = CU_GRAPH_NODE_TYPE_MEM_ALLOC;
            // SAFETY: the node belongs to the graph.
            checked(unsafe { sys::cuGraphNodeGetType(*node, &raw mut kind) })?;
            Ok(kind)
        };
        nodes.iter().map(kind).collect()
    }
}

fn failed(op: &'static str, what: &str) -> OpError {
    OpError::Library { op, library: "the CUDA driver", what: what.to_owned() }
}
