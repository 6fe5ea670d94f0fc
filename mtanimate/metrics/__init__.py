"""L1, PSNR, SSIM, LPIPS, AKD, MKR, AED and the detectors behind them: frames in, numbers out."""
