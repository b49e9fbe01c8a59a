"""What reads the topics with confluent-kafka: pairs to runs, releases and documents to Milvus."""
