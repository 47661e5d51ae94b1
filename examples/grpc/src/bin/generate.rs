//! Makes the generated code in the folder that is named: `scripts/proto` runs it.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args().nth(1).ok_or("usage: generate FOLDER")?;
    let here = env!("CARGO_MANIFEST_DIR");
    let proto = format!("{here}/proto");
    tonic_prost_build::configure()
        .out_dir(folder)
        .compile_protos(&[format!("{proto}/greeter.proto")], &[proto])?;
    Ok(())
}
