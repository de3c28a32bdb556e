"""What a robot needs to run a policy: numpy, cv2, onnx and onnxruntime; no rclpy, no torch."""
