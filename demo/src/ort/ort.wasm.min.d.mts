// The build puts onnxruntime-web's file of this name here; these are its types.
export * from "onnxruntime-web/wasm";
