"""Images from folders, parquet files and the Hub: listed, decoded, split, and cached or streamed."""
