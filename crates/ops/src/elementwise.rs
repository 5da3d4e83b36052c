//! Loops over many numbers: on one thread where a second would cost more than it brings.

use rayon::prelude::*;

use crate::dense::Unwritten;
use crate::simd::{Float, vectorize};

/// Elements that a thread takes at a time; fewer take about as long as waking a thread.
pub(crate) const CHUNK: usize = 1 << 15;

/// Calls `work(i, items[i])` for parts that make up `elements` elements.
pub(crate) fn for_each<I: Send>(
    elements: usize,
    items: impl Iterator<Item = I>,
    work: impl Fn(usize, I) + Sync + Send,
) {
    if elements <= CHUNK {
        items.enumerate().for_each(|(i, item)| work(i, item));
    } else {
        let items: Vec<I> = items.collect();
        items.into_par_iter().enumerate().for_each(|(i, item)| work(i, item));
    }
}

/// `f` of the elements at each place of `M` inputs, as many as the shortest has.
pub(crate) fn map<T: Float, const M: usize>(
    inputs: [&[T]; M],
    f: impl Fn([T; M]) -> T + Sync + Send,
) -> Vec<T> {
    let len = inputs.iter().map(|input| input.len()).min().unwrap_or(0);
    let mut out = Unwritten::new(len);
    for_each(len, out.elements().chunks_mut(CHUNK), |chunk, out| {
        let start = chunk * CHUNK;
        let inputs = inputs.map(|input| &input[start..start + out.len()]);
        vectorize(|| {
            for (i, out) in out.iter_mut().enumerate() {
                // SAFETY: each input was cut to the length of `out`; bounds checks would keep this
                // loop from becoming vector code.
                out.write(f(inputs.map(|input| unsafe { *input.get_unchecked(i) })));
            }
        });
    });
    // SAFETY: the chunks are all elements, and each was written.
    unsafe { out.written() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_element_is_mapped_once() {
        for len in [0, 1, 17, CHUNK, CHUNK + 1, 3 * CHUNK + 5] {
            let a: Vec<f64> = (0..u32::try_from(len).unwrap()).map(f64::from).collect();
            let b: Vec<f64> = a.iter().map(|a| a * a).collect();
            let expected: Vec<f64> = a.iter().map(|a| a - a * a).collect();
            assert_eq!(map([&a, &b], |[a, b]| a - b), expected);
        }
    }
}
