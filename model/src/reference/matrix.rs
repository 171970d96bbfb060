//! A row-major f64 matrix, no more than the reference needs.

use std::ops::Range;

/// A matrix of `rows`·`cols` values, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix {
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub cols: usize,
    /// The values, row by row.
    pub data: Vec<f64>,
}

impl Matrix {
    /// Zeros.
    pub fn zeros(rows: usize, cols: usize) -> Self {
        Self { rows, cols, data: vec![0.0; rows * cols] }
    }

    /// From f32 values, row by row; `data` must have `rows`·`cols` of them.
    pub fn from_f32(rows: usize, cols: usize, data: &[f32]) -> Self {
        debug_assert_eq!(data.len(), rows * cols);
        Self { rows, cols, data: data.iter().map(|&x| f64::from(x)).collect() }
    }

    /// Row `i`.
    pub fn row(&self, i: usize) -> &[f64] {
        &self.data[i * self.cols..(i + 1) * self.cols]
    }

    /// Row `i`.
    pub fn row_mut(&mut self, i: usize) -> &mut [f64] {
        &mut self.data[i * self.cols..(i + 1) * self.cols]
    }

    /// Adds a matrix of the same shape.
    pub fn add(&mut self, other: &Self) {
        debug_assert_eq!((self.rows, self.cols), (other.rows, other.cols));
        for (x, y) in self.data.iter_mut().zip(&other.data) {
            *x += y;
        }
    }

    /// A copy of some columns.
    pub fn columns(&self, columns: Range<usize>) -> Self {
        let data = (0..self.rows).flat_map(|i| self.row(i)[columns.clone()].to_vec()).collect();
        Self { rows: self.rows, cols: columns.len(), data }
    }

    /// Overwrites some columns.
    pub fn set_columns(&mut self, columns: Range<usize>, from: &Self) {
        for i in 0..self.rows {
            self.row_mut(i)[columns.clone()].copy_from_slice(from.row(i));
        }
    }
}
