//! Storage for polynomials: 64-byte aligned, recycled within a thread.

use std::cell::RefCell;

/// Eight words on a cache line, so that every vector load stays within one line.
#[derive(Clone, Copy, Default, bytemuck::Zeroable, bytemuck::Pod)]
#[repr(C, align(64))]
struct Line([u64; 8]);

/// Buffers kept for reuse by one thread. Fresh pages cost about as much as a transform.
const KEPT: usize = 96;

thread_local! {
    static FREE: RefCell<Vec<Vec<Line>>> = const { RefCell::new(Vec::new()) };
}

/// An aligned block of words that returns to its thread's free list when dropped.
///
/// Never holds secrets: those live in zeroized storage of their own.
pub(crate) struct Buffer {
    lines: Vec<Line>,
}

impl Buffer {
    /// `len` words with unspecified (but initialised) contents; `len` is a multiple of 8.
    pub(crate) fn scratch(len: usize) -> Self {
        debug_assert!(len.is_multiple_of(8));
        let want = len / 8;
        let reused = FREE.with_borrow_mut(|free| {
            let best = (0..free.len())
                .filter(|&i| free[i].capacity() >= want && free[i].capacity() <= 2 * want)
                .min_by_key(|&i| free[i].capacity())?;
            Some(free.swap_remove(best))
        });
        let mut lines = reused.unwrap_or_default();
        lines.resize(want, Line::default());
        Self { lines }
    }

    pub(crate) fn words(&self) -> &[u64] {
        bytemuck::cast_slice(&self.lines)
    }

    pub(crate) fn words_mut(&mut self) -> &mut [u64] {
        bytemuck::cast_slice_mut(&mut self.lines)
    }
}

impl Clone for Buffer {
    fn clone(&self) -> Self {
        let mut b = Self::scratch(self.lines.len() * 8);
        b.lines.copy_from_slice(&self.lines);
        b
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let lines = std::mem::take(&mut self.lines);
        if lines.capacity() == 0 {
            return;
        }
        // The free list may already be gone while a thread ends; then the block is just freed.
        let _ = FREE.try_with(|free| {
            if let Ok(mut free) = free.try_borrow_mut()
                && free.len() < KEPT
            {
                free.push(lines);
            }
        });
    }
}

/// Residue rows of one polynomial: row i holds N residues modulo the context's i-th chosen prime.
#[derive(Clone)]
pub(crate) struct Rows {
    n: usize,
    count: usize,
    data: Buffer,
}

impl Rows {
    pub(crate) fn scratch(n: usize, count: usize) -> Self {
        Self { n, count, data: Buffer::scratch(n * count) }
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }

    pub(crate) fn row(&self, i: usize) -> &[u64] {
        &self.data.words()[i * self.n..(i + 1) * self.n]
    }

    pub(crate) fn row_mut(&mut self, i: usize) -> &mut [u64] {
        &mut self.data.words_mut()[i * self.n..(i + 1) * self.n]
    }

    /// All rows in order.
    pub(crate) fn rows(&self) -> impl Iterator<Item = &[u64]> {
        self.data.words().chunks_exact(self.n).take(self.count)
    }

    pub(crate) fn rows_mut(&mut self) -> impl Iterator<Item = &mut [u64]> {
        let (n, count) = (self.n, self.count);
        self.data.words_mut().chunks_exact_mut(n).take(count)
    }

    /// Forgets the rows from `count` on.
    pub(crate) fn truncate(&mut self, count: usize) {
        self.count = self.count.min(count);
    }
}
