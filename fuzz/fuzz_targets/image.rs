//! PNG and JPEG; what decodes must become a model's input.
#![no_main]

use libfuzzer_sys::fuzz_target;
use undertone_model::config::VitInput;
use undertone_model::image::{Picture, Resize};

fuzz_target!(|bytes: &[u8]| {
    let Ok(picture) = Picture::decode(bytes) else { return };
    let (width, height) = picture.size();
    if u64::from(width) * u64::from(height) > 1 << 20 {
        return; // Decoded within the limits; resizing it would only be slow.
    }
    for channels in [1, 3] {
        let vit = VitInput {
            image_size: 8,
            patch_size: 4,
            channels,
            class_token: false,
            pixel_mean: vec![0.5; channels],
            pixel_std: vec![0.5; channels],
        };
        let values = picture.to_input(&vit, Resize::Scale).expect("resizing fits any size");
        assert_eq!(values.len(), vit.image_len());
        assert!(values.iter().all(|x| x.is_finite()));
    }
});
