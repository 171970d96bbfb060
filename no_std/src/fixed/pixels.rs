//! From 8-bit images to what a vision transformer reads: one table look-up a value, no floating point.

/// How the pixels of a square image become rows of patches (Dosovitskiy et al. 2021, arXiv 2010.11929, equation 1).
#[derive(Clone, Copy, Debug)]
pub struct Pixels<'a> {
    /// Pixels of a line, and lines.
    pub side: usize,
    /// Pixels of a side of a patch; divides `side`.
    pub patch: usize,
    /// Whether a row of zeros comes first, in the place of the class token.
    pub class_token: bool,
    /// For each channel, the value of each pixel: normalised and in the format of the model's input.
    pub tables: &'a [[i16; 256]],
}

impl Pixels<'_> {
    /// Bytes of an image.
    #[must_use]
    pub const fn image_len(&self) -> usize {
        self.side * self.side * self.tables.len()
    }

    /// Value `i` of the rows, patch by patch and in each (channel, line, column). Pixels come line by line, the
    /// channels of a pixel side by side. Zero beyond the image.
    ///
    /// ```
    /// use undertone_core::fixed::pixels::Pixels;
    /// let mut table = [0; 256];
    /// (table[7], table[9]) = (70, 90);
    /// let pixels = Pixels { side: 2, patch: 1, class_token: true, tables: &[table] };
    /// let rows: [i16; 5] = core::array::from_fn(|i| pixels.at(&[7, 0, 9, 7], i));
    /// assert_eq!(rows, [0, 70, 0, 90, 70]);
    /// ```
    #[must_use]
    pub fn at(&self, image: &[u8], i: usize) -> i16 {
        let (channels, patch) = (self.tables.len(), self.patch.max(1));
        let columns = channels * patch * patch;
        let Some(i) = i.checked_sub(if self.class_token { columns } else { 0 }) else { return 0 };
        let across = (self.side / patch).max(1);
        let (row, within) = (i / columns.max(1), i % columns.max(1));
        let (channel, place) = (within / (patch * patch), within % (patch * patch));
        let line = row / across * patch + place / patch;
        let column = row % across * patch + place % patch;
        let at = (line * self.side + column) * channels + channel;
        match (image.get(at), self.tables.get(channel)) {
            (Some(&pixel), Some(table)) => table[usize::from(pixel)],
            _ => 0,
        }
    }
}
